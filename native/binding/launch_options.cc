#include "binding/launch_options.h"

#include <unistd.h>

#include <iterator>

#include "base/error.h"

namespace virt {
namespace {

std::vector<std::string> strings(const Value* list) {
  std::vector<std::string> out;
  if (list == nullptr) return out;
  for (const Value& v : list->as_list()) {
    const std::string& s = v.as_string();
    if (s.find('\0') != std::string::npos) throw BadValue("a NUL byte in an argument or in the environment");
    out.push_back(s);
  }
  return out;
}

protocol::MountRule mount_rule(const Value& v) {
  static constexpr const char* kNames[] = {"read-only", "writable", "hide", "own", "pin", "devices", "file"};
  const std::string& name = v.at("operation").as_string();
  for (uint32_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i])
      return {static_cast<protocol::MountOperation>(i), v.at("path").as_string(), v.get_string("source", "")};
  }
  throw BadValue("a mount of kind '" + name + "'");
}

}  // namespace

protocol::Stdio stdio_named(const std::string& name) {
  if (name == "inherit") return protocol::Stdio::kInherit;
  if (name == "streams") return protocol::Stdio::kStreams;
  if (name == "terminal") return protocol::Stdio::kTerminal;
  throw BadValue("standard streams of kind '" + name + "'");
}

LaunchOptions launch_options(const Value& o) {
  LaunchOptions out;
  protocol::LaunchPlan& p = out.plan;
  p.uid = geteuid();
  p.gid = getegid();
  // Real root needs no user namespace, and keeps what it may do.
  if (p.uid != 0) p.flags |= protocol::kPlanUserNamespace;
  if (o.get_bool("keepInput", false)) p.flags |= protocol::kPlanKeepInput;
  if (o.get_bool("viewed", false)) p.flags |= protocol::kPlanViewed;
  if (o.get_bool("far", false)) p.flags |= protocol::kPlanFar;
  if (o.get_bool("patient", false)) p.flags |= protocol::kPlanPatient;
  if (o.get_bool("rebuild", false)) p.flags |= protocol::kPlanRebuild;
  p.stdio = stdio_named(o.get_string("stdio", "inherit"));
  p.rows = static_cast<uint16_t>(o.get_int("rows", 24));
  p.columns = static_cast<uint16_t>(o.get_int("columns", 80));
  p.open_files = parent_open_files();
  p.pts_index = static_cast<uint32_t>(o.get_int("ptsIndex", 0));
  const std::string record = o.get_string("record", "none");
  if (record != "none" && record != "default" && record != "all")
    throw BadValue("a recording of kind '" + record + "'");
  p.recording = record == "default" ? 1 : record == "all" ? 2 : 0;
  p.covered = static_cast<uint32_t>(o.get_int("covered", 0));
  if (const Value* rules = o.find("rules")) p.rules = rules->as_bytes();
  if (o.get_bool("hooked", false)) p.flags |= protocol::kPlanHooked;
  p.state_dir = o.at("stateDir").as_string();
  p.hostname = o.get_string("hostname", "");
  p.cwd = o.get_string("cwd", "");
  if (const Value* remaps = o.find("remaps")) {
    for (const Value& r : remaps->as_list())
      p.remaps.push_back({r.at("from").as_string(), r.at("to").as_string()});
  }
  if (const Value* mounts = o.find("mounts")) {
    for (const Value& m : mounts->as_list()) p.mounts.push_back(mount_rule(m));
  }
  if (o.get_bool("isolated", false)) {
    p.flags |= protocol::kPlanIsolated;
    // Real root is restricted by none of what an isolated pod is made of, but where it is root of the pod alone.
    if (p.uid == 0) p.flags |= protocol::kPlanUserNamespace | protocol::kPlanAllIds;
  }
  if (o.get_bool("noNetwork", false)) p.flags |= protocol::kPlanNoNetwork;
  if (o.get_bool("noDevices", false)) p.flags |= protocol::kPlanNoDevices;
  if (const Value* layers = o.find("layers")) {
    for (const Value& l : layers->as_list()) {
      const std::string kind = l.at("kind").as_string();
      p.layers.push_back({kind == "file"        ? protocol::LayerKind::kFile
                          : kind == "assembled" ? protocol::LayerKind::kAssembled
                                                : protocol::LayerKind::kOverlay,
                          l.at("at").as_string(), l.at("source").as_string()});
    }
  }
  p.argv = strings(o.find("argv"));
  p.env = strings(o.find("env"));
  out.files.init_program = o.at("init").as_string();
  out.files.socket_path = p.socket_path = o.at("socket").as_string();
  if (const Value* fds = o.find("fds")) {
    for (size_t i = 0; i < 3 && i < fds->as_list().size(); ++i)
      out.files.stdio[i] = static_cast<int>(fds->as_list()[i].as_int());
  }
  return out;
}

}  // namespace virt
