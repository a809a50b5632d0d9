#include "binding/wire.h"

#include <fcntl.h>

#include "base/error.h"
#include "binding/convert.h"
#include "binding/job.h"

namespace virt {
namespace {

UniqueFd dup_of(const Napi::Value& fd) {
  UniqueFd own(fcntl(fd.As<Napi::Number>().Int32Value(), F_DUPFD_CLOEXEC, 0));
  if (!own) throw OsError("fcntl", errno, "taking over a stream");
  return own;
}

// What lives as long as somebody uses it: JavaScript's object, a job that sends pages, the hook that runs when Node exits.
struct Ends {
  std::shared_ptr<Wire> wire;
  JobThread sender, receiver;
  bool node_exits = false;

  void end() {
    wire->stop();
    sender.finish({});
    receiver.finish({});
  }
};

// `new Wire(readFd, writeFd)`, which it dups: send(), next(), sendFile(), receiveInto(), progress(), limit(), close().
class JsWire : public Napi::ObjectWrap<JsWire> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "Wire",
        {InstanceMethod<&JsWire::send>("send"), InstanceMethod<&JsWire::next>("next"),
         InstanceMethod<&JsWire::send_file>("sendFile"), InstanceMethod<&JsWire::receive_into>("receiveInto"),
         InstanceMethod<&JsWire::progress>("progress"), InstanceMethod<&JsWire::limit>("limit"),
         InstanceMethod<&JsWire::close>("close")});
  }

  explicit JsWire(const Napi::CallbackInfo& info) : Napi::ObjectWrap<JsWire>(info) {
    try {
      ends_ = std::make_shared<Ends>();
      ends_->wire = std::make_shared<Wire>(dup_of(info[0]), dup_of(info[1]));
    } catch (...) {
      throw to_js_error(info.Env(), std::current_exception());
    }
    hook_.emplace(info.Env().AddCleanupHook(std::function<void()>([ends = ends_] {
      ends->node_exits = true;
      ends->end();
    })));
  }
  ~JsWire() override {
    if (!hook_) return;
    ends_->end();
    if (!ends_->node_exits) hook_->Remove(this->Env());
  }

  [[nodiscard]] const std::shared_ptr<Wire>& wire() const { return ends_->wire; }

 private:
  Napi::Value send(const Napi::CallbackInfo& info) {
    return ends_->sender.post(info.Env(), [wire = ends_->wire, message = from_js(info[0])] {
      wire->send_control(message.as_bytes());
      return virt::Value();
    });
  }
  Napi::Value next(const Napi::CallbackInfo& info) {
    return ends_->receiver.post(info.Env(), [wire = ends_->wire] {
      const auto message = wire->next();
      return message ? virt::Value::bytes(message->data(), message->size()) : virt::Value();
    });
  }
  Napi::Value send_file(const Napi::CallbackInfo& info) {
    const int directory = info[0].As<Napi::Number>().Int32Value();
    return ends_->sender.post(info.Env(), [wire = ends_->wire, directory, name = from_js(info[1])] {
      wire->send_file(directory, name.as_string());
      return virt::Value();
    });
  }
  void receive_into(const Napi::CallbackInfo& info) {
    try {
      ends_->wire->receive_into(info[0].As<Napi::Number>().Int32Value());
    } catch (...) {
      throw to_js_error(info.Env(), std::current_exception());
    }
  }
  Napi::Value progress(const Napi::CallbackInfo& info) {
    Napi::Object o = Napi::Object::New(info.Env());
    o.Set("sentBytes", static_cast<double>(ends_->wire->sent_bytes()));
    o.Set("receivedBytes", static_cast<double>(ends_->wire->received_bytes()));
    return o;
  }
  void limit(const Napi::CallbackInfo& info) {
    ends_->wire->limit(static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value()));
  }
  Napi::Value close(const Napi::CallbackInfo& info) {
    ends_->wire->stop();
    return ends_->receiver.post_last(info.Env(), [ends = ends_] {
      ends->sender.finish([wire = ends->wire] { wire->close_out(); });
      ends->wire->close_in();
      return virt::Value();
    });
  }

  std::shared_ptr<Ends> ends_;
  std::optional<decltype(std::declval<Napi::Env>().AddCleanupHook(std::declval<std::function<void()>>()))>
      hook_;
};

}  // namespace

std::shared_ptr<Wire> wire_of(const Napi::Value& object) {
  if (!object.IsObject()) throw Napi::TypeError::New(object.Env(), "a Wire is expected");
  JsWire* wire = JsWire::Unwrap(object.As<Napi::Object>());
  if (wire == nullptr) throw Napi::TypeError::New(object.Env(), "a Wire is expected");
  return wire->wire();
}

void export_wire(Napi::Env env, Napi::Object exports) { exports.Set("Wire", JsWire::define(env)); }

}  // namespace virt
