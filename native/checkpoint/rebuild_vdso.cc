// The vDSO of a process that is rebuilt (vdso(7)).
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>

#include "arch/vdso.h"
#include "base/error.h"
#include "base/fault.h"
#include "checkpoint/batch_runner.h"
#include "checkpoint/memory_records.h"
#include "checkpoint/rebuild_memory.h"

namespace virt {

// The kernel's own vDSO goes to the old address if it is the same one; otherwise the old bytes are put there
// with every entry point jumping to the new one, which moves out of the way.
void MemoryRebuilder::place_vdso(GrownProcess& p) {
  std::vector<Vma> now;
  for (Vma& v : mappings_of(p.host_pid)) {
    if (is_special(v)) now.push_back(std::move(v));
  }
  std::vector<std::pair<uint64_t, uint64_t>> then;
  uint64_t old_vdso = 0, old_vdso_size = 0;
  for (const Value& m : p.record->at("mappings").as_list()) {
    const std::string& kind = m.at("kind").as_string();
    if (kind != "vdso" && kind != "vvar") continue;
    then.emplace_back(start_of(m), end_of(m) - start_of(m));
    if (kind == "vdso") {
      old_vdso = start_of(m);
      old_vdso_size = end_of(m) - start_of(m);
    }
  }
  const std::string& old_image = plan_.at("vdso").as_bytes();
  const auto vdso = std::find_if(now.begin(), now.end(), [](const Vma& v) { return v.path == "[vdso]"; });
  BatchRunner run(tree_, p);
  // Park everything first: old and new places may overlap.
  const uint64_t parking = tree_.region().parking;
  uint64_t parked = 0;
  std::vector<uint64_t> at;
  std::string new_image;
  if (vdso != now.end()) {
    new_image.resize(vdso->size());
    p.agent->memory().read(vdso->start, new_image.data(), new_image.size());
  }
  bool same =
      then.size() == now.size() && vdso != now.end() && old_vdso != 0 && same_vdso(old_image, new_image);
  for (size_t i = 0; same && i < now.size(); ++i) {
    // vvar, vvar_vclock and vdso address each other by distance.
    same = now[i].size() == then[i].second && now[i].start - now[0].start == then[i].first - then[0].first;
  }
  try {
    fault_point("vdso-differs");
  } catch (const OsError&) {
    same = false;  // a test wants the other way
  }
  const uint64_t base = now.empty() ? 0 : now[0].start;
  for (const Vma& v : now) {
    if (parked + v.size() > kParkingBytes) throw OsError("ERR_NO_VDSO", "mremap", ENOMEM, "moving the vDSO");
    const uint64_t place = parking + (v.start - base);
    Batch& b = run.batch();
    run.expect(b.call(SYS_mremap, v.start, v.size(), v.size(), MREMAP_MAYMOVE | MREMAP_FIXED, place),
               "mremap", "moving the vDSO", v.path);
    at.push_back(place);
    parked = v.end - base;
  }
  run.flush();
  uint64_t target = same ? then[0].first : 0;
  if (!same && !now.empty()) {
    // Anywhere the program has nothing: below the region, where choose_region left room.
    target = tree_.region().start - (8 << 20);
  }
  for (size_t i = 0; i < now.size(); ++i) {
    const uint64_t place = target + (now[i].start - base);
    Batch& b = run.batch();
    run.expect(b.call(SYS_mremap, at[i], now[i].size(), now[i].size(), MREMAP_MAYMOVE | MREMAP_FIXED, place),
               "mremap", "moving the vDSO", now[i].path);
  }
  run.flush();
  if (same || old_vdso == 0) return;

  if (old_image.size() != old_vdso_size) throw BadValue("the image's vDSO has another size than its mapping");
  const uint64_t new_base = vdso == now.end() ? 0 : target + (vdso->start - base);
  Batch& b = run.batch();
  run.expect(b.call(SYS_mmap, old_vdso, old_vdso_size, PROT_READ | PROT_EXEC,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
             "mmap", "placing the old vDSO", hex_range(old_vdso, old_vdso + old_vdso_size));
  run.flush();
  p.agent->memory().write(old_vdso, old_image.data(), old_image.size());
  if (new_image.empty()) return;
  for (const VdsoPatch& patch : redirect_vdso(old_image, new_image, new_base)) {
    p.agent->memory().write(old_vdso + patch.offset, patch.bytes.data(), patch.bytes.size());
  }
}

}  // namespace virt
