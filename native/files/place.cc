#include "files/place.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/fault.h"
#include "files/attributes.h"
#include "files/beneath.h"
#include "files/copy.h"
#include "sys/file.h"

namespace virt {
namespace {

enum class Outcome { written, there, conflict };

class Placer {
 public:
  explicit Placer(const Value& request)
      : to_(open_file(request.at("to").as_string(), O_PATH | O_DIRECTORY)),
        image_(open_file(request.at("image").as_string(), O_PATH | O_DIRECTORY)),
        keep_(request.get_bool("keep", false)),
        owner_(request.get_bool("owner", false)) {
    fault_point("place-files");
    for (const Value& e : request.at("entries").as_list()) {
      const std::string& path = e.at("path").as_string();
      lost_ = false;
      try {
        const Outcome outcome = place(e, path.substr(1));
        if (outcome == Outcome::written) written_.insert(path);
        say(path, outcome);
      } catch (OsError& error) {
        error.at_path(path);
        throw;
      }
    }
    // Directories last, the deepest first: a time is right only when nothing is put there any more, and some let nobody in.
    for (auto d = directories_.rbegin(); d != directories_.rend(); ++d) {
      const UniqueFd fd =
          try_open_beneath(to_.get(), (*d)->at("path").as_string().substr(1), O_PATH | O_DIRECTORY);
      if (!fd)
        throw OsError("openat2", errno, "placing a carried directory").at_path((*d)->at("path").as_string());
      (void)set_attributes(fd.get(), **d, owner_);
    }
  }

  Value take() { return std::move(outcomes_); }

 private:
  void say(const std::string& path, Outcome outcome) {
    Value v = Value::map()
                  .set("path", path)
                  .set("what", outcome == Outcome::written ? "written"
                               : outcome == Outcome::there ? "there"
                                                           : "conflict");
    if (lost_) v.set("lost", true);
    outcomes_.push(std::move(v));
  }

  // The directory that something is to lie in, made if it is missing.
  UniqueFd try_directory(const std::string& path) {
    UniqueFd fd = try_open_beneath(to_.get(), path, O_PATH | O_DIRECTORY);
    if (fd || errno != ENOENT || path.empty()) return fd;
    const UniqueFd parent = try_directory(parent_path(path));
    if (!parent) return UniqueFd();
    if (mkdirat(parent.get(), last_name(path).c_str(), 0755) != 0 && errno != EEXIST) return UniqueFd();
    return try_open_beneath(to_.get(), path, O_PATH | O_DIRECTORY);
  }

  Outcome place(const Value& e, const std::string& path) {
    if (path.empty()) {  // the directory itself
      directories_.push_back(&e);
      return Outcome::written;
    }
    const UniqueFd parent = try_directory(parent_path(path));
    if (!parent) {
      if (keep_ && (errno == ENOTDIR || errno == ELOOP)) return Outcome::conflict;
      throw OsError("openat2", errno, "making a directory for carried files");
    }
    const std::string name = last_name(path);
    const std::string& type = e.at("type").as_string();
    if (type == "directory") return place_directory(e, parent.get(), name);
    if (type == "file") return place_file(e, parent.get(), name);
    int done = -1;
    if (type == "symlink") done = symlinkat(e.at("target").as_string().c_str(), parent.get(), name.c_str());
    if (type == "fifo") done = mkfifoat(parent.get(), name.c_str(), 0600);
    // An overlay's word for "not there" (overlayfs documentation, whiteouts).
    if (type == "absent") done = mknodat(parent.get(), name.c_str(), S_IFCHR, makedev(0, 0));
    if (done != 0) {
      if (errno != EEXIST || !keep_)
        throw OsError(type == "symlink" ? "symlinkat" : "mknodat", errno, "placing a carried file");
      return is_there(e, parent.get(), name) ? Outcome::there : Outcome::conflict;
    }
    if (type != "absent") {
      const UniqueFd fd = try_open_beneath(parent.get(), name, O_PATH | O_NOFOLLOW);
      if (fd) lost_ = !set_attributes(fd.get(), e, owner_);
    }
    return Outcome::written;
  }

  Outcome place_directory(const Value& e, int parent, const std::string& name) {
    const bool made = mkdirat(parent, name.c_str(), 0700) == 0;
    if (!made && errno != EEXIST) throw OsError("mkdirat", errno, "making a carried directory");
    const UniqueFd fd = try_open_beneath(parent, name, O_PATH | O_DIRECTORY);
    if (!fd && keep_) return Outcome::conflict;
    if (!fd) throw OsError("openat2", errno, "making a carried directory");
    if (!made && keep_) return Outcome::there;
    if (e.get_bool("opaque", false) && !keep_ && !make_opaque(fd.get()))
      throw OsError("setxattr", errno, "hiding what is below a carried directory");
    directories_.push_back(&e);
    return Outcome::written;
  }

  UniqueFd content(const Value& e) const {
    if (const Value* host = e.find("host")) return open_file(host->as_string(), O_RDONLY);
    const std::string& name = e.at("name").as_string();
    UniqueFd fd = try_open_beneath(image_.get(), name, O_RDONLY);
    if (!fd)
      throw OsError("ERR_IMAGE_DAMAGED", "openat2", errno, "opening a carried file of the image")
          .at_path(name);
    return fd;
  }

  Outcome place_file(const Value& e, int parent, const std::string& name) {
    if (const Value* other = e.find("linkTo"); other != nullptr && link_to(other->as_string(), parent, name))
      return Outcome::written;
    const UniqueFd from = content(e);
    UniqueFd to(openat(parent, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!to) {
      if (errno != EEXIST || !keep_) throw OsError("openat", errno, "placing a carried file");
      return is_there(e, parent, name) ? Outcome::there : Outcome::conflict;
    }
    const auto size = static_cast<uint64_t>(e.at("sizeBytes").as_int(0, INT64_MAX));
    try {
      if (copy_content(from.get(), to.get(), size, e.get_bool("sparse", false)) != size &&
          e.find("host") == nullptr)
        throw OsError("ERR_IMAGE_DAMAGED", "sendfile", ENODATA, "a carried file is shorter than it was");
      lost_ = !set_attributes(to.get(), e, owner_);
    } catch (const OsError&) {
      unlinkat(parent, name.c_str(), 0);  // half a file is none
      throw;
    }
    return Outcome::written;
  }

  // Another name of a file that was placed before; false if that is not here, or the file system has no links.
  bool link_to(const std::string& other, int parent, const std::string& name) const {
    if (!written_.contains(other)) return false;
    const UniqueFd fd = try_open_beneath(to_.get(), other.substr(1), O_PATH | O_NOFOLLOW);
    return fd && linkat(AT_FDCWD, path_of_fd(fd.get()).c_str(), parent, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
  }

  // What is there already is what was to be placed.
  bool is_there(const Value& e, int parent, const std::string& name) const {
    const std::string& type = e.at("type").as_string();
    const UniqueFd found = try_open_beneath(parent, name, O_PATH | O_NOFOLLOW);
    struct stat st {};
    if (!found || fstat(found.get(), &st) != 0) return false;
    if (type == "fifo") return S_ISFIFO(st.st_mode);
    if (type == "symlink") {
      char text[4096];
      const ssize_t n = S_ISLNK(st.st_mode) ? readlinkat(found.get(), "", text, sizeof text) : -1;
      return n > 0 && e.at("target").as_string() == std::string_view(text, static_cast<size_t>(n));
    }
    if (!S_ISREG(st.st_mode)) return false;
    const UniqueFd fd = try_reopen(found.get(), O_RDONLY);
    return fd && same_content(fd.get(), content(e).get());
  }

  UniqueFd to_, image_;
  bool keep_, owner_;
  bool lost_ = false;
  Value outcomes_ = Value::list();
  std::set<std::string> written_;
  std::vector<const Value*> directories_;
};

}  // namespace

Value place_files(const Value& request) { return Placer(request).take(); }

}  // namespace virt
