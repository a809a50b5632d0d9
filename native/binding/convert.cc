#include "binding/convert.h"

#include <cmath>

#include "base/error.h"

namespace virt {
namespace {

constexpr int kDeepest = 64;
constexpr double kMostExact = 9007199254740991.0;

}  // namespace

Napi::Value to_js(Napi::Env env, const Value& value) {
  if (value.is_null()) return env.Null();
  if (value.is_bool()) return Napi::Boolean::New(env, value.as_bool());
  if (value.is_int()) return Napi::Number::New(env, static_cast<double>(value.as_int()));
  if (value.is_string()) return Napi::String::New(env, value.as_string());
  if (value.is_bytes())
    return Napi::Buffer<char>::Copy(env, value.as_bytes().data(), value.as_bytes().size());
  if (value.is_list()) {
    const auto& list = value.as_list();
    Napi::Array array = Napi::Array::New(env, list.size());
    for (uint32_t i = 0; i < list.size(); ++i) array.Set(i, to_js(env, list[i]));
    return array;
  }
  Napi::Object object = Napi::Object::New(env);
  for (const auto& [key, member] : value.as_map()) object.Set(key, to_js(env, member));
  return object;
}

Value from_js(const Napi::Value& value, int depth) {
  if (depth > kDeepest) throw BadValue("data nested too deeply");
  if (value.IsNull() || value.IsUndefined()) return {};
  if (value.IsBoolean()) return value.As<Napi::Boolean>().Value();
  if (value.IsNumber()) {
    const double n = value.As<Napi::Number>().DoubleValue();
    if (std::trunc(n) != n || std::abs(n) > kMostExact)
      throw BadValue("a number that is not whole and exact");
    return static_cast<int64_t>(n);
  }
  if (value.IsString()) return value.As<Napi::String>().Utf8Value();
  if (value.IsBuffer()) {
    const auto buffer = value.As<Napi::Buffer<char>>();
    return Value::bytes(buffer.Data(), buffer.Length());
  }
  if (value.IsArray()) {
    const auto array = value.As<Napi::Array>();
    Value list = Value::list();
    list.as_list().reserve(array.Length());
    for (uint32_t i = 0; i < array.Length(); ++i) list.push(from_js(array[i], depth + 1));
    return list;
  }
  if (value.IsObject() && !value.IsFunction()) {
    const auto object = value.As<Napi::Object>();
    const Napi::Array names = object.GetPropertyNames();
    Value map = Value::map();
    for (uint32_t i = 0; i < names.Length(); ++i) {
      const std::string name = names.Get(i).As<Napi::String>();
      map.set(name, from_js(object.Get(name), depth + 1));
    }
    return map;
  }
  throw BadValue("something that is no plain data");
}

Napi::Error to_js_error(Napi::Env env, const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const OsError& e) {
    Napi::Error error = Napi::Error::New(env, e.what());
    const auto set = [&](const char* name, const std::string& text) {
      if (!text.empty()) error.Set(name, Napi::String::New(env, text));
    };
    set("code", e.code());
    set("syscall", e.call());
    if (e.error() != 0) {
      error.Set("errno", Napi::Number::New(env, e.error()));
      set("errnoName", errno_name(e.error()));
    }
    const Where& where = e.where();
    if (where.pid) error.Set("pid", Napi::Number::New(env, *where.pid));
    if (where.fd) error.Set("fd", Napi::Number::New(env, *where.fd));
    set("kind", where.kind);
    set("path", where.path);
    set("phase", where.phase);
    if (!e.attached().empty()) {
      Napi::Array attached = Napi::Array::New(env);
      for (const std::string& text : e.attached())
        attached.Set(attached.Length(), Napi::String::New(env, text));
      error.Set("attached", attached);
    }
    return error;
  } catch (const BadValue& e) {
    Napi::Error error = Napi::Error::New(env, e.what());
    error.Set("code", Napi::String::New(env, "ERR_BAD_VALUE"));
    return error;
  } catch (const std::exception& e) {
    Napi::Error error = Napi::Error::New(env, std::string("a bug in virt-run: ") + e.what());
    error.Set("code", Napi::String::New(env, "ERR_BUG"));
    return error;
  }
}

}  // namespace virt
