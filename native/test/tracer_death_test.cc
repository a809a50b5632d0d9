// The core promise: a supervisor may die at any moment and the program goes on unharmed. A tracer freezes a
// program, installs the agent, runs batches, takes it out and lets go, and is killed: at every single system
// call it makes, and at random moments in between, when the program runs in our code.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "arch/vdso.h"
#include "checkpoint/foothold.h"
#include "checkpoint/freeze.h"
#include "checkpoint/process_inside.h"
#include "memory/vma.h"
#include "sys/file.h"
#include "sys/proc.h"
#include "test/observer.h"
#include "test/support.h"

using namespace virt;
using virt::test::Child;
using virt::test::Observer;
using virt::test::Random;
using virt::test::Shared;

namespace {

// How far the tracer is: after kFrozen no wait of the program may fail with EINTR.
enum Progress { kStart, kFrozen, kDone };

std::vector<Vma> mappings(pid_t pid) {
  return parse_smaps(read_file(proc_path(pid, "smaps"), size_t{64} << 20));
}

// What a capture does to a process, in small: every thread is borrowed, several batches are run.
int trace_once(pid_t init, std::atomic<int>& progress) {
  FrozenPod pod = freeze(init, 10'000);
  progress = kFrozen;
  for (FrozenProcess& p : pod.processes) {
    const auto vmas = mappings(p.host_pid);
    step_out_of_vdso(p, *find_vdso(vmas));
    Foothold foothold(p, vmas);
    for (size_t i = 0; i < p.threads.size(); ++i) {
      Batch b(foothold.agent().site());
      const auto pid = b.call(SYS_getpid);
      const auto tid = b.call(SYS_gettid);
      for (int k = 0; k < 200; ++k) b.call(SYS_getppid);
      const Borrowed who = foothold.borrow(i);
      foothold.agent().run(who, b);
      give_back(who);
      if (b.result(pid) != p.pid || b.result(tid) != p.threads[i].tid) return 1;
    }
    foothold.remove();
  }
  pod = FrozenPod{};
  progress = kDone;
  return 0;
}

// A process with the observer as its child: freeze() wants an init.
class Pod {
 public:
  Pod()
      : init_([this] {
          Observer program;
          *program_pid_ = program.pid();
          while (*asked_ >= 0) {
            if (*asked_ == *answered_) {
              test::sleep_us(50);
              continue;
            }
            const std::string wrong = program.wrong_after_going_on();
            wrong.copy(wrong_->text, sizeof wrong_->text - 1);
            wrong_->interrupted = program.seen().interrupted.load();
            *answered_ = asked_->load();
          }
          return 0;
        }) {
    while (*program_pid_ == 0) test::sleep_us(100);
  }
  [[nodiscard]] pid_t init() const { return init_.pid(); }
  [[nodiscard]] pid_t program() const { return *program_pid_; }
  // Empty, or what is wrong with the program.
  std::string check() {
    const int number = ++*asked_;
    while (*answered_ != number && init_.alive()) test::sleep_us(50);
    return wrong_->text;
  }
  [[nodiscard]] uint64_t interrupted() const { return wrong_->interrupted; }

 private:
  struct Wrong {
    char text[200] = {};
    std::atomic<uint64_t> interrupted{0};
  };
  Shared<std::atomic<int>> program_pid_, asked_, answered_;
  Shared<Wrong> wrong_;
  Child init_;
};

size_t count_leftovers(pid_t pid) {
  const RemoteMemory memory(pid);
  size_t n = 0;
  for (const Vma& v : mappings(pid)) n += is_leftover(v, memory) ? 1 : 0;
  return n;
}

// Signals that wait for one of the threads: nobody but us sends any to a single thread of it.
uint64_t waiting_for_threads(pid_t pid) {
  uint64_t all = 0;
  for (const int tid : try_list_numbers(proc_path(pid, "task")).value_or(std::vector<int>{})) {
    const auto status = try_read_status(proc_path(pid, "task/" + std::to_string(tid)));
    all |= status ? status->number("SigPnd", 16).value_or(0) : 0;
  }
  return all;
}

std::string vdso_of(pid_t pid) {
  const auto vmas = mappings(pid);
  const Vma* vdso = find_vdso(vmas);
  std::string image(vdso->size(), '\0');
  RemoteMemory(pid).read(vdso->start, image.data(), image.size());
  return image;
}

}  // namespace

TEST_CASE("nobody dies: the program notices nothing, and nothing stays behind") {
  Pod pod;
  const std::string vdso = vdso_of(pod.program());
  const size_t before = mappings(pod.program()).size();
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> progress = kStart;
    REQUIRE(trace_once(pod.init(), progress) == 0);
    REQUIRE(pod.check() == "");
  }
  CHECK(pod.interrupted() == 0);
  CHECK(vdso_of(pod.program()) == vdso);
  CHECK(mappings(pod.program()).size() <=
        before + 2);  // the program's own threads map stacks when they please
  CHECK(count_leftovers(pod.program()) == 0);
}

TEST_CASE("the tracer is killed at each of its system calls") {
  Pod pod;
  const std::string vdso = vdso_of(pod.program());
  Shared<std::atomic<int>> progress;
  uint64_t interrupted_before = 0;
  int interrupted = 0;
  for (int last = 1;; ++last) {
    *progress = kStart;
    Child tracer([&] {
      ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      raise(SIGSTOP);
      return trace_once(pod.init(), *progress);
    });
    int status = 0;
    REQUIRE(waitpid(tracer.pid(), &status, 0) == tracer.pid());
    REQUIRE(WIFSTOPPED(status));
    ptrace(PTRACE_SETOPTIONS, tracer.pid(), nullptr, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
    bool ended = false;
    for (int stops = 0; stops < 2 * last - 1 && !ended; ++stops) {  // the entry of call number `last`
      int signal = 0;
      do {
        ptrace(PTRACE_SYSCALL, tracer.pid(), nullptr, signal);
        REQUIRE(waitpid(tracer.pid(), &status, 0) == tracer.pid());
        ended = !WIFSTOPPED(status);
        signal = ended ? 0 : WSTOPSIG(status);
      } while (!ended && signal != (SIGTRAP | 0x80));
    }
    if (ended) {
      CHECK(WIFEXITED(status));
      CHECK(WEXITSTATUS(status) == 0);
      MESSAGE("killed at ", last - 1, " system calls; waits interrupted: ", interrupted);
      // Seldom a wait ends with EINTR, as it may for any stop (signal(7)): not yet understood, and seen to be counted.
      CHECK(interrupted <= last / 100);
      break;
    }
    tracer.kill_and_wait();
    const std::string wrong = pod.check();
    if (!wrong.empty()) FAIL("killed at system call ", last, ", progress ", progress->load(), ": ", wrong);
    if (waiting_for_threads(pod.program()) != 0)
      FAIL("killed at system call ", last, ": a signal is left behind");
    if (*progress >= kFrozen && pod.interrupted() != interrupted_before) ++interrupted;
    interrupted_before = pod.interrupted();
  }
  // A whole capture afterwards finds everything in order and takes away what was left.
  std::atomic<int> at_last = kStart;
  REQUIRE(trace_once(pod.init(), at_last) == 0);
  CHECK(pod.check() == "");
  CHECK(count_leftovers(pod.program()) == 0);
  CHECK(same_vdso(vdso_of(pod.program()), vdso));
}

TEST_CASE("the tracer is killed at random moments") {
  Pod pod;
  Shared<std::atomic<int>> progress;
  int in_the_middle = 0;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    Random random(seed);
    Child tracer([&] {
      for (;;) {
        *progress = kStart;
        if (trace_once(pod.init(), *progress) != 0) return 1;
      }
    });
    test::sleep_us(static_cast<long>(2000 + random.below(20'000)));
    REQUIRE(tracer.alive());
    tracer.kill_and_wait();
    in_the_middle += *progress == kFrozen ? 1 : 0;
    const std::string wrong = pod.check();
    if (!wrong.empty()) FAIL("seed ", seed, ", progress ", progress->load(), ": ", wrong);
  }
  CHECK_MESSAGE(in_the_middle > 50, "otherwise the moments were badly chosen");
}
