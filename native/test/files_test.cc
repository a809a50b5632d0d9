// files: nothing is found, made or overwritten outside of the directory it is said to be in.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "base/error.h"
#include "files/beneath.h"
#include "files/list.h"
#include "files/place.h"

using namespace virt;
namespace fs = std::filesystem;

namespace {

struct Directory {
  std::string path;
  Directory() {
    char name[] = "/tmp/virt-run-files-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path = name;
    for (const char* d : {"image", "image/files", "to", "outside"}) fs::create_directory(path + "/" + d);
    std::ofstream(path + "/image/files/one") << "content";
    std::ofstream(path + "/outside/kept") << "kept";
  }
  ~Directory() { fs::remove_all(path); }
};

Value entry(const std::string& path, const std::string& type) {
  Value e = Value::map()
                .set("path", path)
                .set("type", type)
                .set("mode", 0644)
                .set("mtimeNs", "1000000000123456789");
  if (type == "file") e.set("name", "files/one").set("sizeBytes", 7);
  return e;
}

Value place(const Directory& d, Value one, bool keep) {
  Value entries = Value::list();
  entries.push(std::move(one));
  return place_files(Value::map()
                         .set("to", d.path + "/to")
                         .set("image", d.path + "/image")
                         .set("entries", std::move(entries))
                         .set("keep", keep));
}

std::string read(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::string outcome(const Value& v) { return v.as_list().at(0).at("what").as_string(); }

}  // namespace

TEST_CASE("a file with its attributes, and not twice") {
  const Directory d;
  CHECK(outcome(place(d, entry("/a/b/file", "file"), false)) == "written");
  CHECK(read(d.path + "/to/a/b/file") == "content");
  struct stat st {};
  REQUIRE(stat((d.path + "/to/a/b/file").c_str(), &st) == 0);
  CHECK((st.st_mode & 07777) == 0644);
  CHECK(st.st_mtim.tv_sec == 1000000000);
  CHECK(st.st_mtim.tv_nsec == 123456789);
  CHECK_THROWS_AS(place(d, entry("/a/b/file", "file"), false), OsError);
  CHECK(outcome(place(d, entry("/a/b/file", "file"), true)) == "there");
  std::ofstream(d.path + "/to/a/b/file") << "other!!";
  CHECK(outcome(place(d, entry("/a/b/file", "file"), true)) == "conflict");
  CHECK(read(d.path + "/to/a/b/file") == "other!!");
}

TEST_CASE("no link leads out") {
  const Directory d;
  fs::create_symlink(d.path + "/outside", d.path + "/to/way");
  fs::create_symlink(d.path + "/outside/kept", d.path + "/to/kept");
  for (const char* type : {"file", "directory", "symlink", "fifo", "absent"}) {
    CAPTURE(type);
    Value e = entry("/way/new", type);
    if (std::string(type) == "symlink") e.set("target", "x");
    CHECK_THROWS_AS(place(d, e, false), OsError);
    CHECK(outcome(place(d, e, true)) == "conflict");
    e.set("path", "/kept");
    CHECK(outcome(place(d, e, true)) == "conflict");
  }
  CHECK(fs::directory_iterator(d.path + "/outside") != fs::directory_iterator());
  CHECK(std::distance(fs::directory_iterator(d.path + "/outside"), fs::directory_iterator()) == 1);
  CHECK(read(d.path + "/outside/kept") == "kept");
  Value e = entry("/file", "file");
  e.set("name", "../outside/kept");
  CHECK_THROWS_AS(place(d, e, false), OsError);
  fs::create_symlink(d.path + "/outside/kept", d.path + "/image/files/link");
  e.set("name", "files/link");
  CHECK_THROWS_AS(place(d, e, false), OsError);
  CHECK_FALSE(fs::exists(d.path + "/to/file"));
}

TEST_CASE("content that is shorter than it should be is none") {
  const Directory d;
  Value e = entry("/file", "file");
  e.set("sizeBytes", 8);
  CHECK_THROWS_WITH_AS(place(d, e, false), doctest::Contains("shorter"), OsError);
  CHECK_FALSE(fs::exists(d.path + "/to/file"));
}

TEST_CASE("only what is below the root is found, and links are not followed on the way") {
  const Directory d;
  fs::create_symlink(d.path + "/outside", d.path + "/to/way");
  std::ofstream(d.path + "/to/real") << "x";
  fs::create_symlink("/real", d.path + "/to/link");
  Value paths = Value::list();
  for (const char* path : {"/way/kept", "/../outside/kept", "/way", "/missing"})
    paths.push(Value::map().set("path", path));
  paths.push(Value::map().set("path", "/link").set("follow", true));
  const Value found = list_files(Value::map().set("root", d.path + "/to").set("paths", std::move(paths)));
  std::string all;
  for (const Value& e : found.at("entries").as_list())
    all += e.at("path").as_string() + " " + e.at("type").as_string() + "\n";
  CHECK(all == "/link symlink\n/real file\n/way symlink\n");
  CHECK(found.at("refused").as_list().empty());
}
