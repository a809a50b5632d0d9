// The layout of the extended processor state (xsave area, standard format) on this CPU: which components
// there are and where each lies. AMD and Intel place some differently, so a state is moved component by
// component when the layouts differ. Intel SDM vol. 1, chapter 13.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "base/value.h"

namespace virt {

struct XstateLayout {
  // Component number (2: AVX, 5–7: AVX-512, 9: PKRU, 17–18: AMX) → offset and size; 0 and 1 lie in the first
  // 512.
  std::map<unsigned, std::pair<uint32_t, uint32_t>> components;

  static XstateLayout of_this_cpu();
  static XstateLayout from_value(const Value& value);
  [[nodiscard]] Value to_value() const;
  bool operator==(const XstateLayout&) const = default;
};

// Components that are in use (not in their initial configuration) in a state: bits of XSTATE_BV.
uint64_t used_components(const std::string& state);

// The same state laid out for `to`. Throws OsError ERR_CPU_FEATURE if a component in use does not exist
// there.
std::string convert_xstate(const std::string& state, const XstateLayout& from, const XstateLayout& to);

}  // namespace virt
