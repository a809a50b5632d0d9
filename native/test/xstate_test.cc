// arch/xstate: vector state moved between the layouts of two CPUs.
#include "arch/xstate.h"

#include <doctest/doctest.h>

#include <cstring>

#include "base/error.h"

using namespace virt;

namespace {

constexpr size_t kStart = 576;  // behind the legacy area and the header
constexpr unsigned kAvx = 2, kMask = 5, kPkru = 9;

std::string state(size_t size, uint64_t used) {
  std::string s(size, '\0');
  for (size_t i = 0; i < 512; ++i) s[i] = static_cast<char>(i * 3);
  std::memcpy(s.data() + 512, &used, sizeof used);
  for (size_t i = kStart; i < size; ++i) s[i] = static_cast<char>(i * 7 + i / 256);
  return s;
}

uint64_t bits(std::initializer_list<unsigned> components) {
  uint64_t b = 3;
  for (const unsigned c : components) b |= uint64_t{1} << c;
  return b;
}

}  // namespace

TEST_CASE("this CPU's layout survives the image") {
  const XstateLayout here = XstateLayout::of_this_cpu();
  CHECK(XstateLayout::from_value(here.to_value()) == here);
  for (const auto& [component, place] : here.components) {
    CHECK(component >= 2);
    CHECK(place.first >= kStart);
    CHECK(place.second > 0);
  }
}

TEST_CASE("with the same layout nothing changes") {
  XstateLayout layout;
  layout.components[kAvx] = {kStart, 256};
  const std::string s = state(1000, bits({kAvx}));
  CHECK(convert_xstate(s, layout, layout) == s);
  CHECK(used_components(s) == bits({kAvx}));
  CHECK(used_components("short") == 0);
}

TEST_CASE("each component in use goes to its new place") {
  XstateLayout from, to;
  from.components = {{kAvx, {kStart, 256}}, {kMask, {832, 64}}, {kPkru, {2688, 8}}};
  to.components = {{kPkru, {kStart, 8}}, {kAvx, {640, 256}}, {kMask, {1024, 64}}};
  const std::string s = state(2696, bits({kAvx, kPkru}));
  const std::string out = convert_xstate(s, from, to);
  CHECK(out.size() == 1088);
  CHECK(out.substr(0, kStart) == s.substr(0, kStart));
  CHECK(out.substr(640, 256) == s.substr(kStart, 256));
  CHECK(out.substr(kStart, 8) == s.substr(2688, 8));
  CHECK_MESSAGE(out.substr(1024, 64) == std::string(64, '\0'),
                "a component that is not in use does not travel");
  CHECK(convert_xstate(out, to, from).substr(kStart, 256) == s.substr(kStart, 256));
}

TEST_CASE("a component in use that the other CPU lacks is refused by number") {
  XstateLayout from, to, smaller;
  from.components = {{kAvx, {kStart, 256}}, {kMask, {832, 64}}};
  to.components = {{kAvx, {kStart, 256}}};
  smaller.components = {{kAvx, {kStart, 128}}, {kMask, {832, 64}}};
  try {
    (void)convert_xstate(state(900, bits({kAvx, kMask})), from, to);
    FAIL("a component was lost");
  } catch (const OsError& e) {
    CHECK(e.code() == "ERR_CPU_FEATURE");
    CHECK(std::string(e.what()).find("component 5") != std::string::npos);
  }
  CHECK_THROWS_AS((void)convert_xstate(state(900, bits({kAvx})), from, smaller), OsError);
  // Not in use: nothing is lost.
  CHECK(convert_xstate(state(900, bits({kAvx})), from, to).size() == 832);
}

TEST_CASE("states and layouts that do not fit together are refused") {
  XstateLayout from, to;
  from.components = {{kAvx, {kStart, 256}}};
  to.components = {{kAvx, {640, 256}}};
  for (const size_t size : {size_t{0}, size_t{511}, size_t{575}}) {
    CAPTURE(size);
    CHECK_THROWS_AS((void)convert_xstate(std::string(size, 'x'), from, to), BadValue);
  }
  CHECK_THROWS_AS((void)convert_xstate(state(831, bits({kAvx})), from, to), BadValue);
  CHECK(convert_xstate(state(832, bits({kAvx})), from, to).size() == 896);
  CHECK_THROWS_AS((void)convert_xstate(state(832, bits({kMask})), from, to), BadValue);
  const auto layout = [](std::initializer_list<int64_t> numbers) {
    Value triple = Value::list(), list = Value::list();
    for (const int64_t n : numbers) triple.push(n);
    list.push(std::move(triple));
    return list;
  };
  CHECK(XstateLayout::from_value(layout({2, 576, 256})).components.size() == 1);
  for (const auto& bad : {layout({2, 576}), layout({2, 576, 256, 1}), layout({1, 576, 256}),
                          layout({63, 576, 256}), layout({2, 575, 256}), layout({2, 1 << 20, 256}),
                          layout({2, 576, -1}), layout({2, 576, int64_t{1} << 40})}) {
    CHECK_THROWS_AS((void)XstateLayout::from_value(bad), BadValue);
  }
  CHECK_THROWS_AS((void)XstateLayout::from_value(Value(1)), BadValue);
}
