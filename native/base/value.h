// Value is plain data: the one shape in which the survey, the image and the plan cross between C++ and
// TypeScript. It owns everything in it, has no identity, and may be moved between threads.
//
// Records are small (a handle, a vma, a process), so a map is a sorted-by-insertion vector of pairs. Integers
// are int64; 64-bit masks and addresses above 2^53 are written as hex strings by those who store them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace virt {

// A record that does not have the shape its reader needs: a damaged image or a bug above the native border.
class BadValue : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Value {
 public:
  using List = std::vector<Value>;
  using Map = std::vector<std::pair<std::string, Value>>;
  // Bytes that are not text (register sets, queue contents). A Buffer in JavaScript, base64 in the manifest.
  struct Bytes {
    std::string data;
    bool operator==(const Bytes&) const = default;
  };

  Value() = default;
  Value(bool b) : v_(b) {}                            // NOLINT(google-explicit-constructor)
  Value(int i) : v_(static_cast<int64_t>(i)) {}       // NOLINT(google-explicit-constructor)
  Value(unsigned i) : v_(static_cast<int64_t>(i)) {}  // NOLINT(google-explicit-constructor)
  Value(int64_t i) : v_(i) {}                         // NOLINT(google-explicit-constructor)
  Value(uint64_t i) : v_(static_cast<int64_t>(i)) {}  // NOLINT(google-explicit-constructor)
  Value(std::string s) : v_(std::move(s)) {}          // NOLINT(google-explicit-constructor)
  Value(std::string_view s) : v_(std::string(s)) {}   // NOLINT(google-explicit-constructor)
  Value(const char* s) : v_(std::string(s)) {}        // NOLINT(google-explicit-constructor)
  Value(Bytes b) : v_(std::move(b)) {}                // NOLINT(google-explicit-constructor)
  Value(List l) : v_(std::move(l)) {}                 // NOLINT(google-explicit-constructor)
  Value(Map m) : v_(std::move(m)) {}                  // NOLINT(google-explicit-constructor)

  static Value list() { return Value(List{}); }
  static Value map() { return Value(Map{}); }
  static Value bytes(const void* p, size_t n) {
    return Value(Bytes{std::string(static_cast<const char*>(p), n)});
  }
  // A full 64-bit mask, as text: JavaScript's numbers hold 53 bits.
  static Value hex(uint64_t mask);

  [[nodiscard]] bool is_null() const { return std::holds_alternative<std::monostate>(v_); }
  [[nodiscard]] bool is_bool() const { return std::holds_alternative<bool>(v_); }
  [[nodiscard]] bool is_int() const { return std::holds_alternative<int64_t>(v_); }
  [[nodiscard]] bool is_string() const { return std::holds_alternative<std::string>(v_); }
  [[nodiscard]] bool is_bytes() const { return std::holds_alternative<Bytes>(v_); }
  [[nodiscard]] bool is_list() const { return std::holds_alternative<List>(v_); }
  [[nodiscard]] bool is_map() const { return std::holds_alternative<Map>(v_); }

  // Typed access; BadValue names the member that was wrong.
  [[nodiscard]] bool as_bool() const;
  [[nodiscard]] int64_t as_int() const;
  [[nodiscard]] int64_t as_int(int64_t least, int64_t most) const;
  [[nodiscard]] uint64_t as_hex() const;
  [[nodiscard]] const std::string& as_string() const;
  [[nodiscard]] const std::string& as_bytes() const;
  [[nodiscard]] const List& as_list() const;
  [[nodiscard]] const Map& as_map() const;
  [[nodiscard]] List& as_list();

  // Member access. `at` throws when the member is missing, `find` gives null, `get_*` a default.
  [[nodiscard]] const Value& at(std::string_view key) const;
  [[nodiscard]] const Value* find(std::string_view key) const;
  [[nodiscard]] int64_t get_int(std::string_view key, int64_t otherwise) const;
  [[nodiscard]] bool get_bool(std::string_view key, bool otherwise) const;
  [[nodiscard]] std::string get_string(std::string_view key, std::string_view otherwise) const;

  Value& set(std::string_view key, Value value);
  void push(Value value) { as_list().push_back(std::move(value)); }

 private:
  std::variant<std::monostate, bool, int64_t, std::string, Bytes, List, Map> v_;
};

}  // namespace virt
