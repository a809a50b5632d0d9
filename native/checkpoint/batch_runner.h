// Remote calls of a process that is rebuilt, in batches as large as they get.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "checkpoint/grow_tree.h"
#include "checkpoint/grown.h"

namespace virt {

// Calls of one batch that must not fail.
class ExpectedCalls {
 public:
  // `path`: what the call is about, if it is not the process itself.
  void add(size_t index, const char* call, const char* doing, std::string path = {}) {
    list_.push_back({index, call, doing, std::move(path)});
  }
  // After the run: throws OsError for the first that failed, naming the process and what it was about.
  void check(const Batch& batch, pid_t pid) {
    for (const Expected& e : list_) {
      try {
        batch.must(e.index, e.call, e.doing);
      } catch (OsError& error) {
        error.in_process(pid);
        if (!e.path.empty()) error.of_kind("mapping").at_path(e.path);
        throw;
      }
    }
    list_.clear();
  }

 private:
  struct Expected {
    size_t index;
    const char* call;
    const char* doing;
    std::string path;
  };
  std::vector<Expected> list_;
};

class BatchRunner {
 public:
  BatchRunner(Tree& tree, GrownProcess& p) : tree_(tree), p_(p), batch_(p.agent->site()) {}
  Batch& batch() {
    if (batch_.full(4096)) flush();
    return batch_;
  }
  // The call's result must not be an error.
  void expect(size_t index, const char* call, const char* doing, std::string what) {
    expected_.add(index, call, doing, std::move(what));
  }
  void flush() {
    p_.agent->run(p_.borrow(tree_.region()), batch_);
    expected_.check(batch_, p_.pid);
    batch_ = Batch(p_.agent->site());
  }

 private:
  Tree& tree_;
  GrownProcess& p_;
  Batch batch_;
  ExpectedCalls expected_;
};

}  // namespace virt
