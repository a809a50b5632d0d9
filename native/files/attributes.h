// What a file has beside content and name: mode, owner, times, extended attributes (xattr(7), the user's alone).
#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>

#include "base/value.h"

namespace virt {

// mode, uid, gid, mtimeNs
void describe_attributes(const struct stat& st, Value& record);
// `xattrs`: pairs of name and bytes, if there are any; not overlayfs's own.
void describe_xattrs(int fd, Value& record);
// Of an upper directory: what the directory below it shows is hidden.
bool is_opaque(int fd);
bool make_opaque(int fd);

// Gives a file (any descriptor, O_PATH as well) what a record says; owner only if `owner`. False if an extended attribute
// could not be had (the file system has none).
bool set_attributes(int fd, const Value& record, bool owner);

// True if it is UTF-8 without NUL.
bool is_text(std::string_view text);

}  // namespace virt
