// Credentials and limits of a process that is rebuilt: the last that is set, because it takes rights away.
#include <linux/capability.h>
#include <linux/prctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "checkpoint/batch_runner.h"
#include "checkpoint/rebuild_process.h"
#include "sys/proc.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

namespace virt {
namespace {

std::vector<uint32_t> ids(const Value& list) {
  std::vector<uint32_t> out;
  for (const Value& v : list.as_list()) out.push_back(static_cast<uint32_t>(v.as_int(0, UINT32_MAX)));
  return out;
}

}  // namespace

// Every thread has its own credentials in the kernel: each gives up its own.
void ProcessRebuilder::limit_credentials(GrownProcess& p, size_t thread) {
  const Value& c = p.record->at("credentials");
  const auto uid = ids(c.at("uid")), gid = ids(c.at("gid")), groups = ids(c.at("groups"));
  if (uid.size() != 4 || gid.size() != 4) throw BadValue("credentials without four ids");
  const auto status = try_read_status(proc_path(p.threads[thread].thread.host_tid(), ""));
  if (!status) throw OsError("ERR_PROCESS_GONE", "open", ESRCH, "a process was killed meanwhile");
  const auto same = [&](const char* key, const std::vector<uint32_t>& wanted) {
    const auto now = status->numbers(key);
    return std::equal(now.begin(), now.end(), wanted.begin(), wanted.end());
  };
  Batch b(p.agent->site());
  ExpectedCalls checks;
  const uint64_t bounding = c.at("bounding").as_hex(),
                 bounding_now = status->number("CapBnd", 16).value_or(0);
  for (int cap = 0; cap < 64; ++cap) {
    if ((bounding_now >> cap & 1) != 0 && (bounding >> cap & 1) == 0)
      b.call(SYS_prctl, PR_CAPBSET_DROP, cap, 0, 0, 0);
  }
  if (!same("Groups", groups)) {
    checks.add(b.call(SYS_setgroups, groups.size(), b.in(groups.data(), groups.size() * sizeof groups[0])),
               "setgroups", "taking the old groups");
  }
  if (!same("Gid", gid)) {
    checks.add(b.call(SYS_setresgid, gid[0], gid[1], gid[2]), "setresgid", "taking the old group id");
    b.call(SYS_setfsgid, gid[3]);
  }
  // The ids change while all capabilities are there; they are kept over the change and set exactly
  // afterwards.
  const bool new_uid = !same("Uid", uid);
  if (new_uid) {
    b.call(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0);
    checks.add(b.call(SYS_setresuid, uid[0], uid[1], uid[2]), "setresuid", "taking the old user id");
    b.call(SYS_setfsuid, uid[3]);
  }
  b.call(SYS_prctl, PR_SET_KEEPCAPS, p.record->get_bool("keepCaps", false) ? 1 : 0, 0, 0, 0);
  const uint64_t effective = c.at("effective").as_hex(), permitted = c.at("permitted").as_hex(),
                 inheritable = c.at("inheritable").as_hex();
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  // setresuid cleared the effective set; PR_SET_SECUREBITS needs CAP_SETPCAP in it.
  if (const auto secure = p.record->get_int("secureBits", 0); secure != 0) {
    __user_cap_data_struct all[2] = {{~0U, ~0U, 0}, {0x1ff, 0x1ff, 0}};
    const uint64_t now = status->number("CapPrm", 16).value_or(0);
    all[0].effective = all[0].permitted = static_cast<uint32_t>(now);
    all[1].effective = all[1].permitted = static_cast<uint32_t>(now >> 32);
    b.call(SYS_capset, b.in(&header, sizeof header), b.in(all, sizeof all));
    checks.add(b.call(SYS_prctl, PR_SET_SECUREBITS, secure, 0, 0, 0), "prctl", "setting the secure bits");
  }
  __user_cap_data_struct data[2] = {
      {static_cast<uint32_t>(effective), static_cast<uint32_t>(permitted),
       static_cast<uint32_t>(inheritable)},
      {static_cast<uint32_t>(effective >> 32), static_cast<uint32_t>(permitted >> 32),
       static_cast<uint32_t>(inheritable >> 32)}};
  checks.add(b.call(SYS_capset, b.in(&header, sizeof header), b.in(data, sizeof data)), "capset",
             "setting the capabilities");
  const uint64_t ambient = c.at("ambient").as_hex();
  for (int cap = 0; cap < 64; ++cap) {
    if ((ambient >> cap & 1) != 0) b.call(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
  }
  if (p.record->get_bool("noNewPrivs", false)) b.call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (thread == 0) {
    // Both are reset by a change of ids, so they come after it.
    const int64_t dumpable = p.record->at("dumpable").as_int(0, 2);
    b.call(SYS_prctl, PR_SET_DUMPABLE, dumpable == 1 ? 1 : 0, 0, 0, 0);
    if (const Value* deny = p.record->find("denyWriteExecute"))
      b.call(SYS_prctl, PR_SET_MDWE, deny->as_int(0, 3), 0, 0, 0);
    b.call(SYS_prctl, PR_SET_PDEATHSIG, p.record->get_int("deathSignal", 0), 0, 0, 0);
  }
  p.agent->run(p.borrow(tree_.region(), thread), b);
  checks.check(b, p.pid);
}

// From outside, which may raise one; of a process that is another user now that needs CAP_SYS_RESOURCE, but
// it may lower its own.
bool ProcessRebuilder::set_limit(GrownProcess& p, size_t which, const rlimit64& limit) {
  if (prlimit64(p.host_pid, static_cast<__rlimit_resource>(which), &limit, nullptr) == 0) return true;
  Batch b(p.agent->site());
  const size_t set = b.call(SYS_prlimit64, 0, which, b.in(&limit, sizeof limit), 0);
  p.agent->run(p.borrow(tree_.region()), b);
  return b.result(set) == 0;
}

void ProcessRebuilder::set_credentials(GrownProcess& p) {
  // Limits last of all: they may forbid what we just did. Raising one above ours needs a privilege.
  for (size_t i = p.threads.size(); i-- > 0;) limit_credentials(p, i);
  const auto& limits = p.record->at("limits").as_list();
  const auto now = try_read_limits(proc_path(p.host_pid, ""));
  if (!now) throw OsError("ERR_PROCESS_GONE", "open", ESRCH, "a process was killed meanwhile");
  for (size_t which = 0; which < limits.size() && which < RLIM_NLIMITS; ++which) {
    const auto& pair = limits[which].as_list();
    if (pair.size() != 2) throw BadValue("a limit that is no pair");
    const auto number = [](const Value& v) -> rlim64_t {
      if (v.as_string() == "unlimited") return RLIM64_INFINITY;
      const auto n = parse_number(v.as_string());
      if (!n) throw BadValue("a limit that is no number");
      return *n;
    };
    const rlimit64 wanted{number(pair[0]), number(pair[1])};
    const auto [soft, hard] = (*now)[which];
    if (wanted.rlim_cur == soft && wanted.rlim_max == hard) continue;
    if (set_limit(p, which, wanted)) continue;
    const rlimit64 most{std::min(wanted.rlim_cur, hard), std::min(wanted.rlim_max, hard)};
    if (!set_limit(p, which, most) || most.rlim_cur != wanted.rlim_cur || most.rlim_max != wanted.rlim_max) {
      notes.push_back("pid " + std::to_string(p.pid) + ": limit " + std::to_string(which) +
                      " (getrlimit(2)) is lower here than it was");
    }
  }
}

}  // namespace virt
