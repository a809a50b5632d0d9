#include "init/protocol.h"

namespace virt::protocol {

std::string encode(const LaunchPlan& plan) {
  Writer w;
  w.number(kVersion);
  w.number(plan.flags);
  w.number(plan.stdio);
  w.number(plan.uid);
  w.number(plan.gid);
  w.number(plan.rows);
  w.number(plan.columns);
  w.number(plan.open_files);
  w.number(plan.monotonic_offset_ns);
  w.number(plan.boottime_offset_ns);
  w.number(plan.pts_index);
  w.number(plan.recording);
  w.number(plan.covered);
  w.text(plan.rules);
  w.text(plan.state_dir);
  w.text(plan.socket_path);
  w.text(plan.hostname);
  w.text(plan.cwd);
  w.number(static_cast<uint32_t>(plan.remaps.size()));
  for (const Remap& r : plan.remaps) {
    w.text(r.from);
    w.text(r.to);
  }
  w.number(static_cast<uint32_t>(plan.mounts.size()));
  for (const MountRule& m : plan.mounts) {
    w.number(m.operation);
    w.text(m.path);
    w.text(m.source);
  }
  w.number(static_cast<uint32_t>(plan.layers.size()));
  for (const Layer& l : plan.layers) {
    w.number(l.kind);
    w.text(l.at);
    w.text(l.source);
  }
  w.texts(plan.argv);
  w.texts(plan.env);
  return w.bytes();
}

bool decode(std::string_view bytes, LaunchPlan* plan) {
  Reader r(bytes);
  if (r.number<uint32_t>() != kVersion) return false;
  plan->flags = r.number<uint32_t>();
  plan->stdio = r.number<Stdio>();
  plan->uid = r.number<uint32_t>();
  plan->gid = r.number<uint32_t>();
  plan->rows = r.number<uint16_t>();
  plan->columns = r.number<uint16_t>();
  plan->open_files = r.number<uint64_t>();
  plan->monotonic_offset_ns = r.number<int64_t>();
  plan->boottime_offset_ns = r.number<int64_t>();
  plan->pts_index = r.number<uint32_t>();
  plan->recording = r.number<uint32_t>();
  plan->covered = r.number<uint32_t>();
  plan->rules = r.text();
  plan->state_dir = r.text();
  plan->socket_path = r.text();
  plan->hostname = r.text();
  plan->cwd = r.text();
  const auto remaps = r.number<uint32_t>();
  for (uint32_t i = 0; i < remaps && r.ok(); ++i) {
    Remap m;
    m.from = r.text();
    m.to = r.text();
    plan->remaps.push_back(m);
  }
  const auto mounts = r.number<uint32_t>();
  for (uint32_t i = 0; i < mounts && r.ok(); ++i) {
    MountRule m;
    m.operation = r.number<MountOperation>();
    m.path = r.text();
    m.source = r.text();
    if (m.operation > MountOperation::kFile) return false;
    plan->mounts.push_back(m);
  }
  const auto layers = r.number<uint32_t>();
  for (uint32_t i = 0; i < layers && r.ok(); ++i) {
    Layer l;
    l.kind = r.number<LayerKind>();
    l.at = r.text();
    l.source = r.text();
    plan->layers.push_back(l);
  }
  plan->argv = r.texts();
  plan->env = r.texts();
  return r.done();
}

std::string encode(const ExecPlan& plan) {
  Writer w;
  w.number(plan.stdio);
  w.number(plan.rows);
  w.number(plan.columns);
  w.text(plan.cwd);
  w.texts(plan.argv);
  w.texts(plan.env);
  return w.bytes();
}

bool decode(std::string_view bytes, ExecPlan* plan) {
  Reader r(bytes);
  plan->stdio = r.number<Stdio>();
  plan->rows = r.number<uint16_t>();
  plan->columns = r.number<uint16_t>();
  plan->cwd = r.text();
  plan->argv = r.texts();
  plan->env = r.texts();
  return r.done();
}

std::string encode(const Status& status) {
  Writer w;
  w.number(status.version);
  w.number(status.first_pid);
  w.number(status.exited);
  w.number(status.wait_status);
  w.number(status.stdio);
  w.number(status.viewers);
  w.number(status.terminal_fd);
  w.number(status.terminal_index);
  w.number(status.rebuilding);
  w.number(static_cast<uint32_t>(status.streams.size()));
  for (const auto& s : status.streams) {
    w.number(s.device);
    w.number(s.inode);
  }
  return w.bytes();
}

std::string encode(const HoldStatus& status) {
  return wire::pack(status.version, status.connections, status.listeners, status.datagrams, status.held_ms,
                    status.gone_on, status.connected);
}

std::string encode(const FarPlan& plan) {
  Writer w;
  w.number(plan.through);
  w.text(plan.key);
  w.text(plan.holder);
  w.number(plan.cut_limit_ms);
  w.number(plan.has_state);
  w.number(static_cast<uint32_t>(plan.sockets.size()));
  for (const FarSocket& s : plan.sockets) {
    for (const uint32_t n : {s.id, s.family, s.type, s.v6_only, s.unread_bytes}) w.number(n);
    w.text(s.local);
    w.text(s.peer);
  }
  return w.bytes();
}

std::string encode(const std::vector<FarState>& states) {
  Writer w;
  w.number(static_cast<uint32_t>(states.size()));
  for (const FarState& s : states) {
    w.text(s.key);
    w.text(s.holder);
    w.number(s.cut_limit_ms);
    w.number(static_cast<uint32_t>(s.sockets.size()));
    for (const auto& [channel, inode] : s.sockets) {
      w.number(channel);
      w.number(inode);
    }
  }
  return w.bytes();
}

bool decode(std::string_view bytes, std::vector<FarState>* states) {
  Reader r(bytes);
  const auto count = r.number<uint32_t>();
  for (uint32_t i = 0; i < count && r.ok(); ++i) {
    FarState s;
    s.key = r.text();
    s.holder = r.text();
    s.cut_limit_ms = r.number<uint32_t>();
    const auto sockets = r.number<uint32_t>();
    for (uint32_t k = 0; k < sockets && r.ok(); ++k) {
      const auto channel = r.number<uint32_t>();
      const auto inode = r.number<uint64_t>();
      s.sockets.emplace_back(channel, inode);
    }
    states->push_back(std::move(s));
  }
  return r.done();
}

bool decode(std::string_view bytes, FarPlan* plan) {
  Reader r(bytes);
  plan->through = r.number<uint32_t>();
  plan->key = r.text();
  plan->holder = r.text();
  plan->cut_limit_ms = r.number<uint32_t>();
  plan->has_state = r.number<uint32_t>();
  const auto count = r.number<uint32_t>();
  if (count > kMostHeldInFrame) return false;
  for (uint32_t i = 0; i < count && r.ok(); ++i) {
    FarSocket s;
    for (uint32_t* n : {&s.id, &s.family, &s.type, &s.v6_only, &s.unread_bytes}) *n = r.number<uint32_t>();
    s.local = r.text();
    s.peer = r.text();
    plan->sockets.push_back(std::move(s));
  }
  return r.done();
}

bool decode(std::string_view bytes, Status* status) {
  Reader r(bytes);
  status->version = r.number<uint32_t>();
  status->first_pid = r.number<uint32_t>();
  status->exited = r.number<uint32_t>();
  status->wait_status = r.number<int32_t>();
  status->stdio = r.number<Stdio>();
  status->viewers = r.number<uint32_t>();
  status->terminal_fd = r.number<int32_t>();
  status->terminal_index = r.number<uint32_t>();
  status->rebuilding = r.number<uint32_t>();
  const auto count = r.number<uint32_t>();
  if (count > r.rest().size() / 16) return false;
  for (uint32_t i = 0; i < count; ++i) {
    Status::Stream s;
    s.device = r.number<uint64_t>();
    s.inode = r.number<uint64_t>();
    status->streams.push_back(s);
  }
  return r.done();
}

}  // namespace virt::protocol
