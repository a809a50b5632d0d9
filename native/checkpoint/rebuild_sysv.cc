// System V shared memory segments that are made again (shmop(2), sysvipc(7)): id, key, owner, content, attachments.
#include <fcntl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include <cerrno>

#include "base/error.h"
#include "checkpoint/memory_records.h"
#include "checkpoint/rebuild_memory.h"

namespace virt {

// A System V segment with its old id: ids are given in order, and the kernel lets a checkpoint choose the
// next one (shm_next_id, kernel.rst); without that right the first ones come out the same.
void MemoryRebuilder::make_sysv(const Value& object) {
  const auto id = object.at("shmid").as_int(0, INT32_MAX);
  try {
    const int next = context_.open_in_pod("/proc/sys/kernel/shm_next_id", O_WRONLY);
    const std::string text = std::to_string(id);
    Batch b = context_.batch();
    b.call(SYS_write, next, b.in(text), text.size());
    b.call(SYS_close, next);
    context_.run(b);
  } catch (const OsError&) {
    // Not allowed here: the check of the id below decides.
  }
  const auto size = object.at("sizeBytes").as_int(1, INT64_MAX);
  const int64_t got =
      context_.call(SYS_shmget, object.at("key").as_int(), size,
                    IPC_CREAT | IPC_EXCL | static_cast<int>(object.at("mode").as_int(0, 0777)));
  if (got < 0) throw OsError("shmget", static_cast<int>(-got), "making a System V segment again");
  if (got != id) {
    throw OsError("ERR_IPC_ID", "shmget", 0,
                  "System V segment " + std::to_string(id) + " cannot have its old id here");
  }
  // Filled through the seed, which is attached for the moment.
  const int64_t at = context_.call(SYS_shmat, id, 0, 0);
  if (at < 0 && at > -4096) throw OsError("shmat", static_cast<int>(-at), "filling a System V segment");
  const RemoteMemory memory(tree_.seed().host_pid);
  std::string buffer(kPageBytes, '\0');
  for (const PageRun& run : unpack_runs(object.find("pages"))) {
    for (uint64_t i = 0; i < run.count; ++i) {
      pages_.read(run.index + i, 1, buffer.data());
      memory.write(static_cast<uint64_t>(at) + run.start + i * kPageBytes, buffer.data(), buffer.size());
    }
  }
  context_.call(SYS_shmdt, at);
  shmid_ds owner{};
  owner.shm_perm.uid = static_cast<uid_t>(object.get_int("uid", 0));
  owner.shm_perm.gid = static_cast<gid_t>(object.get_int("gid", 0));
  owner.shm_perm.mode = static_cast<unsigned short>(object.at("mode").as_int(0, 0777));
  Batch b = context_.batch();
  const size_t set = b.call(SYS_shmctl, id, IPC_SET, b.in(&owner, sizeof owner));
  context_.run(b);
  b.must(set, "shmctl", "giving a System V segment its owner");
}

// A piece of a segment: all of it is attached somewhere, and the piece moved to its place.
void MemoryRebuilder::attach_sysv(GrownProcess& p, const Value& m) {
  const Value& object =
      plan_.at("memory").as_list().at(static_cast<size_t>(m.at("memory").as_int(0, INT32_MAX)));
  const uint64_t start = start_of(m), size = end_of(m) - start;
  const uint64_t offset = static_cast<uint64_t>(m.get_int("offset", 0));
  const auto whole = static_cast<uint64_t>(object.at("sizeBytes").as_int(1, INT64_MAX) + 4095) / 4096 * 4096;
  if (offset + size > whole) throw BadValue("a mapping beyond the end of its System V segment");
  const auto protection = static_cast<int>(m.at("protection").as_int(0, 7));
  const int flags =
      (m.get_bool("writable", false) ? 0 : SHM_RDONLY) | ((protection & PROT_EXEC) != 0 ? SHM_EXEC : 0);
  const auto call = [&](const char* name, long number, auto... args) {
    const int64_t result = p.agent->call(p.borrow(tree_.region()), number, args...);
    if (result < 0 && result > -4096) {
      throw OsError(name, static_cast<int>(-result), "attaching a System V segment")
          .in_process(p.pid)
          .of_kind("mapping")
          .at_path(hex_range(start, start + size));
    }
    return static_cast<uint64_t>(result);
  };
  const uint64_t at = call("shmat", SYS_shmat, object.at("shmid").as_int(), 0, flags);
  call("mremap", SYS_mremap, at + offset, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, start);
  if (offset > 0) call("munmap", SYS_munmap, at, offset);
  if (offset + size < whole) call("munmap", SYS_munmap, at + offset + size, whole - offset - size);
  call("mprotect", SYS_mprotect, start, size, protection);
}

}  // namespace virt
