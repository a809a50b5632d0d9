// interpose/glob: patterns for paths.
#include "interpose/glob.h"

#include <doctest/doctest.h>

#include <string>

using namespace virt;

TEST_CASE("a path means itself and all below it") {
  CHECK(matches_path("/a", "/a"));
  CHECK(matches_path("/a", "/a/b/c"));
  CHECK_FALSE(matches_path("/a", "/ab"));
  CHECK_FALSE(matches_path("/a/b", "/a"));
  CHECK(matches_path("/", "/anything"));
  CHECK_FALSE(matches_path("/", "@abstract"));
}

TEST_CASE("one star stays within a part, two go across") {
  CHECK(matches_pattern("/a/*.c", "/a/x.c"));
  CHECK_FALSE(matches_pattern("/a/*.c", "/a/b/x.c"));
  CHECK(matches_pattern("/a/**.c", "/a/b/x.c"));
  CHECK(matches_pattern("/a/**/x.c", "/a/b/c/x.c"));
  CHECK(matches_pattern("/a/**/x.c", "/a/x.c"));
  CHECK_FALSE(matches_pattern("/a/**/x.c", "/a/bx.c"));
  CHECK(matches_pattern("/**", "/a/b"));
  CHECK(matches_pattern("**/.git/**", "/a/.git/x/y"));
  CHECK(matches_pattern("/*/b*/**/*.o", "/a/bcd/e/f/g.o"));
  CHECK_FALSE(matches_pattern("/*/b*/**/*.o", "/a/cd/e/f/g.o"));
  CHECK(matches_pattern("/a*", "/a"));
  CHECK_FALSE(matches_pattern("/a*b", "/a/b"));
  CHECK(matches_pattern("*a*b*c", "xxaayybbzzc"));
}

TEST_CASE("sets and single characters") {
  CHECK(matches_pattern("/f[0-9].[ch]", "/f7.c"));
  CHECK_FALSE(matches_pattern("/f[0-9].[ch]", "/fx.c"));
  CHECK(matches_pattern("/[!a]", "/b"));
  CHECK_FALSE(matches_pattern("/[!a]", "/a"));
  CHECK_FALSE(matches_pattern("/a[!x]b", "/a/b"));
  CHECK(matches_pattern("/[]]", "/]"));
  CHECK(matches_pattern("/a[b", "/a[b"));
  CHECK(matches_pattern("/a?c", "/abc"));
  CHECK_FALSE(matches_pattern("/a?c", "/a/c"));
}

TEST_CASE("many stars end in bounded time") {
  std::string pattern, path(4000, 'a');
  for (int i = 0; i < 200; ++i) pattern += "*a**a";
  CHECK_FALSE(matches_pattern(pattern + "b", "/" + path));
}
