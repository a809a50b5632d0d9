#include "arch/xstate.h"

#include <cpuid.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace virt {
namespace {

constexpr size_t kLegacyBytes = 512, kHeaderBytes = 64, kHeaderOffset = 512;
constexpr unsigned kFirstExtended = 2, kLastComponent = 62;
constexpr uint64_t kMostOffset = 64 << 10;

uint64_t read_xcr0() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

}  // namespace

XstateLayout XstateLayout::of_this_cpu() {
  XstateLayout layout;
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0) return layout;
  const uint64_t enabled = read_xcr0();
  for (unsigned i = kFirstExtended; i <= kLastComponent; ++i) {
    if ((enabled >> i & 1) == 0) continue;
    __cpuid_count(0xd, i, a, b, c, d);
    layout.components[i] = {b, a};
  }
  return layout;
}

Value XstateLayout::to_value() const {
  Value list = Value::list();
  for (const auto& [component, place] : components) {
    Value v = Value::list();
    v.push(static_cast<int64_t>(component));
    v.push(static_cast<int64_t>(place.first));
    v.push(static_cast<int64_t>(place.second));
    list.push(std::move(v));
  }
  return list;
}

XstateLayout XstateLayout::from_value(const Value& value) {
  XstateLayout layout;
  for (const Value& v : value.as_list()) {
    const auto& parts = v.as_list();
    if (parts.size() != 3) throw BadValue("an xstate component that is no triple");
    layout.components[static_cast<unsigned>(parts[0].as_int(kFirstExtended, kLastComponent))] = {
        static_cast<uint32_t>(parts[1].as_int(kLegacyBytes + kHeaderBytes, kMostOffset)),
        static_cast<uint32_t>(parts[2].as_int(0, kMostOffset))};
  }
  return layout;
}

uint64_t used_components(const std::string& state) {
  uint64_t used = 0;
  if (state.size() >= kHeaderOffset + sizeof used)
    std::memcpy(&used, state.data() + kHeaderOffset, sizeof used);
  return used;
}

std::string convert_xstate(const std::string& state, const XstateLayout& from, const XstateLayout& to) {
  if (from == to) return state;
  if (state.size() < kLegacyBytes + kHeaderBytes) throw BadValue("an xsave area that is cut short");
  size_t size = kLegacyBytes + kHeaderBytes;
  for (const auto& [component, place] : to.components)
    size = std::max<size_t>(size, place.first + place.second);
  std::string out(size, '\0');
  std::memcpy(out.data(), state.data(), kLegacyBytes + kHeaderBytes);
  const uint64_t used = used_components(state);
  for (unsigned i = kFirstExtended; i <= kLastComponent; ++i) {
    if ((used >> i & 1) == 0) continue;
    const auto source = from.components.find(i), target = to.components.find(i);
    if (source == from.components.end()) throw BadValue("an xstate component without a place");
    if (target == to.components.end() || target->second.second != source->second.second) {
      throw OsError(
          "ERR_CPU_FEATURE", "ptrace", 0,
          "this CPU lacks processor state component " + std::to_string(i) + ", which the program is using");
    }
    const auto [at, length] = source->second;
    if (at > state.size() || length > state.size() - at) throw BadValue("an xsave area that is cut short");
    std::memcpy(out.data() + target->second.first, state.data() + at, length);
  }
  return out;
}

}  // namespace virt
