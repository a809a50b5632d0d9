#include "base/value.h"

#include <cstdio>
#include <cstdlib>

namespace virt {

Value Value::hex(uint64_t mask) {
  char text[19];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(mask));
  return Value(text);
}

bool Value::as_bool() const {
  if (const auto* b = std::get_if<bool>(&v_)) return *b;
  throw BadValue("expected true or false");
}

int64_t Value::as_int() const {
  if (const auto* i = std::get_if<int64_t>(&v_)) return *i;
  throw BadValue("expected a whole number");
}

int64_t Value::as_int(int64_t least, int64_t most) const {
  const int64_t i = as_int();
  if (i < least || i > most) {
    throw BadValue("expected a number from " + std::to_string(least) + " to " + std::to_string(most) +
                   ", found " + std::to_string(i));
  }
  return i;
}

uint64_t Value::as_hex() const {
  const std::string& s = as_string();
  if (s.size() < 3 || s.size() > 18 || s[0] != '0' || s[1] != 'x' ||
      s.find_first_not_of("0123456789abcdef", 2) != std::string::npos) {
    throw BadValue("expected a hex number as text");
  }
  return std::strtoull(s.c_str() + 2, nullptr, 16);
}

const std::string& Value::as_string() const {
  if (const auto* s = std::get_if<std::string>(&v_)) return *s;
  throw BadValue("expected text");
}

const std::string& Value::as_bytes() const {
  if (const auto* b = std::get_if<Bytes>(&v_)) return b->data;
  throw BadValue("expected bytes");
}

const Value::List& Value::as_list() const {
  if (const auto* l = std::get_if<List>(&v_)) return *l;
  throw BadValue("expected a list");
}

Value::List& Value::as_list() {
  if (auto* l = std::get_if<List>(&v_)) return *l;
  throw BadValue("expected a list");
}

const Value::Map& Value::as_map() const {
  if (const auto* m = std::get_if<Map>(&v_)) return *m;
  throw BadValue("expected a record");
}

const Value* Value::find(std::string_view key) const {
  for (const auto& [name, value] : as_map()) {
    if (name == key) return value.is_null() ? nullptr : &value;
  }
  return nullptr;
}

const Value& Value::at(std::string_view key) const {
  if (const Value* v = find(key)) return *v;
  throw BadValue("member '" + std::string(key) + "' is missing");
}

int64_t Value::get_int(std::string_view key, int64_t otherwise) const {
  const Value* v = find(key);
  return v == nullptr ? otherwise : v->as_int();
}

bool Value::get_bool(std::string_view key, bool otherwise) const {
  const Value* v = find(key);
  return v == nullptr ? otherwise : v->as_bool();
}

std::string Value::get_string(std::string_view key, std::string_view otherwise) const {
  const Value* v = find(key);
  return v == nullptr ? std::string(otherwise) : v->as_string();
}

Value& Value::set(std::string_view key, Value value) {
  if (is_null()) v_ = Map{};
  auto* m = std::get_if<Map>(&v_);
  if (m == nullptr) throw BadValue("expected a record");
  for (auto& [name, old] : *m) {
    if (name == key) {
      old = std::move(value);
      return *this;
    }
  }
  m->emplace_back(std::string(key), std::move(value));
  return *this;
}

}  // namespace virt
