#include "files/attributes.h"

#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "files/beneath.h"
#include "sys/proc.h"
#include "sys/utf8.h"

namespace virt {
namespace {

constexpr size_t kMostXattrBytes = 65536;  // xattr(7)
constexpr const char* kOpaque = "user.overlay.opaque";
constexpr int64_t kSecond = 1'000'000'000;

bool is_carried(std::string_view name) {
  return name.starts_with("user.") && !name.starts_with("user.overlay.");
}

}  // namespace

void describe_attributes(const struct stat& st, Value& record) {
  record.set("mode", static_cast<int>(st.st_mode & 07777))
      .set("uid", int64_t{st.st_uid})
      .set("gid", int64_t{st.st_gid});
  record.set("mtimeNs", std::to_string(int64_t{st.st_mtim.tv_sec} * kSecond + st.st_mtim.tv_nsec));
}

void describe_xattrs(int fd, Value& record) {
  const std::string path = path_of_fd(fd);
  std::vector<char> names(kMostXattrBytes), value(kMostXattrBytes);
  const ssize_t size = listxattr(path.c_str(), names.data(), names.size());
  if (size <= 0) return;
  Value list = Value::list();
  for (size_t at = 0; at < static_cast<size_t>(size);) {
    const std::string name = &names[at];
    at += name.size() + 1;
    if (!is_carried(name) || !is_text(name)) continue;
    const ssize_t n = getxattr(path.c_str(), name.c_str(), value.data(), value.size());
    if (n < 0) continue;
    Value pair = Value::list();
    pair.push(name);
    pair.push(Value::bytes(value.data(), static_cast<size_t>(n)));
    list.push(std::move(pair));
  }
  if (!list.as_list().empty()) record.set("xattrs", std::move(list));
}

bool is_opaque(int fd) {
  char value = 0;
  return getxattr(path_of_fd(fd).c_str(), kOpaque, &value, 1) == 1 && value == 'y';
}

bool make_opaque(int fd) { return setxattr(path_of_fd(fd).c_str(), kOpaque, "y", 1, 0) == 0; }

bool set_attributes(int fd, const Value& record, bool owner) {
  const bool link = record.at("type").as_string() == "symlink";
  if (owner) {
    check(fchownat(fd, "", static_cast<uid_t>(record.get_int("uid", 0)),
                   static_cast<gid_t>(record.get_int("gid", 0)), AT_EMPTY_PATH),
          "fchownat", "giving a carried file its owner");
  }
  bool all = true;
  const std::string path = path_of_fd(fd);
  if (const Value* xattrs = record.find("xattrs"); xattrs != nullptr && !link) {
    for (const Value& pair : xattrs->as_list()) {
      const std::string& name = pair.as_list().at(0).as_string();
      const std::string& bytes = pair.as_list().at(1).as_bytes();
      if (!is_carried(name) || setxattr(path.c_str(), name.c_str(), bytes.data(), bytes.size(), 0) != 0)
        all = false;
    }
  }
  if (!link)
    check(chmod(path.c_str(), static_cast<mode_t>(record.at("mode").as_int(0, 07777))), "chmod",
          "giving a carried file its mode");
  const std::string& text = record.at("mtimeNs").as_string();
  const bool negative = text.starts_with("-");
  const auto digits = parse_number(std::string_view(text).substr(negative ? 1 : 0));
  if (!digits || *digits > uint64_t{INT64_MAX}) throw BadValue("a time that is no number");
  const int64_t ns = negative ? -static_cast<int64_t>(*digits) : static_cast<int64_t>(*digits);
  int64_t seconds = ns / kSecond, rest = ns % kSecond;
  if (rest < 0) {
    rest += kSecond;
    --seconds;
  }
  timespec times[2] = {{0, UTIME_NOW}, {seconds, rest}};
  // AT_EMPTY_PATH is understood since Linux 5.8.
  check(utimensat(fd, "", times, AT_EMPTY_PATH), "utimensat", "giving a carried file its time");
  return all;
}

bool is_text(std::string_view text) {
  while (!text.empty() && text[0] != 0) {
    const size_t size = utf8_sequence(text);
    if (size == 0) return false;
    text.remove_prefix(size);
  }
  return text.empty();
}

}  // namespace virt
