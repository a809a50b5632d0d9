// Plain data as bytes, for what crosses from one process to another on one machine: numbers in the machine's order, texts
// with their length before them. No exceptions: virt-init uses this too.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace virt::wire {

// Appends fields in order.
class Writer {
 public:
  template <typename T>
  void number(T n) {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&n), sizeof n);
  }
  void text(std::string_view s) {
    number(static_cast<uint32_t>(s.size()));
    bytes_.append(s);
  }
  void texts(const std::vector<std::string>& list) {
    number(static_cast<uint32_t>(list.size()));
    for (const auto& s : list) text(s);
  }
  void raw(std::string_view s) { bytes_.append(s); }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// A payload that is nothing but these numbers.
template <typename... T>
std::string pack(T... numbers) {
  Writer w;
  (w.number(numbers), ...);
  return w.bytes();
}

// Reads fields in order; after the first thing that does not fit everything reads as zero and ok() says
// false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  template <typename T>
  T number() {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
    T n{};
    if (rest_.size() < sizeof n) {
      fail();
      return T{};
    }
    std::memcpy(&n, rest_.data(), sizeof n);
    rest_.remove_prefix(sizeof n);
    return n;
  }
  std::string text() {
    const auto size = number<uint32_t>();
    if (size > rest_.size()) {
      fail();
      return {};
    }
    std::string s(rest_.substr(0, size));
    rest_.remove_prefix(size);
    return s;
  }
  std::vector<std::string> texts() {
    std::vector<std::string> list;
    const auto count = number<uint32_t>();
    if (count > rest_.size() / 4) fail();  // each takes at least its length
    for (uint32_t i = 0; i < count && ok_; ++i) list.push_back(text());
    return list;
  }
  [[nodiscard]] std::string_view rest() const { return rest_; }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool done() const { return ok_ && rest_.empty(); }

 private:
  void fail() {
    ok_ = false;
    rest_ = {};
  }
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace virt::wire
