#include "init/interposer.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "init/high_pids.h"
#include "interpose/filter.h"
#include "interpose/journal.h"
#include "interpose/listener.h"
#include "interpose/outcome.h"
#include "interpose/path.h"
#include "interpose/program.h"
#include "interpose/substitute.h"
#include "sys/clocks.h"
#include "sys/thread.h"

namespace virt::init {
namespace {

// What may be written is asked as the program would be told: with no more rights than it has, but those to look.
void lower_rights() {
  constexpr uint32_t kLook = 1U << CAP_SYS_PTRACE | 1U << CAP_DAC_READ_SEARCH;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return;
  data[0].effective &= kLook;
  data[1].effective = 0;
  syscall(SYS_capset, &header, data);
}

int answering_threads() {
  constexpr int kMost = 4;
  cpu_set_t cpus;
  return sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? std::clamp(CPU_COUNT(&cpus), 1, kMost) : 1;
}

// One that nobody waits for.
int start_detached(void* (*run)(void*), void* arg) {
  pthread_t id;
  const int error = start_thread(run, arg, &id);
  if (error == 0) pthread_detach(id);
  return error;
}

}  // namespace

// A call that is made, or answered, by a thread of its own.
struct Interposer::Work {
  Interposer* interposer = nullptr;
  Ask ask;
  HookAnswer hook;  // only its `answer` and `inject` matter here
  UniqueFd fd;
};

Interposer::Interposer() = default;
Interposer::~Interposer() = default;

int Interposer::start(Setup setup) {
  setup_ = std::move(setup);
  auto rules = std::make_shared<RuleSet>();
  if (!RuleSet::decode(setup_.rules, rules.get())) return EINVAL;
  selected_ = recorded_kinds(setup_.recording) | rules->kinds() | setup_.covered;
  if (selected_ == 0) return 0;
  // Who a caller is, and where its paths begin, holds until these.
  selected_ |= kind_bit(CallKind::execute) | kind_bit(CallKind::root);
  // What rules that come later need beside their own kinds.
  constexpr KindSet kNamed = kind_bit(CallKind::bind) | kind_bit(CallKind::connect);
  if ((setup_.covered & kNamed) != 0) selected_ |= kind_bit(CallKind::name);
  rules_ = std::move(rules);
  paused_ = setup_.paused;
  hooked_ = setup_.hooked;
  real_root_ = getuid() == 0;
  own_pid_ = getpid();
  for (UniqueFd* fd : {&asked_, &caught_up_, &news_, &stir_}) {
    fd->reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!*fd) return errno;
  }
  int handover[2];
  if (pipe2(handover, O_CLOEXEC) != 0) return errno;
  handover_.reset(handover[0]);
  const UniqueFd hand_over(handover[1]);
  journal_ = std::make_unique<Journal>(setup_.state_dir);
  recorder_ = std::make_unique<Recorder>(setup_.recording, *journal_);
  reader_ = std::make_unique<CallReader>(setup_.host_proc.get());
  const int answering = answering_threads();
  {
    const HighPids high(answering + 2);
    int error = start_detached(catch_up_thread, this);
    for (int i = 0; i < answering && error == 0; ++i) error = start_detached(answer_thread, this);
    if (setup_.errands && error == 0) error = start_detached(errand_thread, this);
    if (error != 0) return error;
  }
  UniqueFd listener;
  if (const int refused = install_filter(selected_, setup_.sockets, &listener); refused != 0) return refused;
  // From here on whoever makes a selected call waits for the thread.
  listener_ = std::make_unique<Listener>(std::move(listener));
  for (int i = 0; i < answering; ++i) {
    if (write(hand_over.get(), "", 1) != 1) return EIO;
  }
  runs_ = true;
  return 0;
}

int Interposer::catch_up() {
  if (!runs_) return 0;
  constexpr int kPatienceMs = 5000;
  const uint64_t request = ++requests_;
  eventfd_write(asked_.get(), 1);
  const int64_t end = monotonic_ns() + int64_t{kPatienceMs} * 1'000'000;
  while (done_ < request) {
    pollfd p{caught_up_.get(), POLLIN, 0};
    const int64_t left_ms = (end - monotonic_ns()) / 1'000'000;
    if (left_ms <= 0) return ETIMEDOUT;
    eventfd_t count;
    if (poll(&p, 1, static_cast<int>(left_ms)) > 0) eventfd_read(caught_up_.get(), &count);
  }
  return full_ ? ENOSPC : 0;
}

std::shared_ptr<const RuleSet> Interposer::rules() {
  const std::lock_guard lock(rules_mutex_);
  return rules_;
}

int Interposer::change_rules(std::string_view bytes) {
  auto rules = std::make_shared<RuleSet>();
  if (!RuleSet::decode(bytes, rules.get())) return EINVAL;
  if ((rules->kinds() & ~selected_) != 0) return EOPNOTSUPP;
  const std::lock_guard lock(rules_mutex_);
  rules_ = std::move(rules);
  return 0;
}

std::vector<std::string> Interposer::take_news() {
  eventfd_t count;
  eventfd_read(news_.get(), &count);
  return asks_.take_news();
}

void Interposer::set_hooked(bool hooked) {
  hooked_ = hooked;
  if (hooked) return;
  for (Ask& ask : asks_.take_all()) apply_aside(std::move(ask));
}

void Interposer::answered(const HookAnswer& answer, UniqueFd fd) {
  Ask ask;
  if (!asks_.take(answer.id, &ask)) return;  // its time was over
  ask.rule.to_path = answer.to_path;
  ask.rule.to_address = answer.to_address;
  ask.rule.to_port = answer.to_port;
  ask.rule.path.clear();
  ask.rule.error = static_cast<int32_t>(answer.value);
  auto work = std::make_unique<Work>();
  switch (answer.verdict) {
    case HookVerdict::answer:
    case HookVerdict::inject:
      work->hook = answer;
      work->fd = std::move(fd);
      break;
    default:
      ask.rule.verdict = static_cast<Verdict>(answer.verdict);
  }
  work->ask = std::move(ask);
  put_aside(std::move(work));
}

// The keeper's thread has the filter itself, and so would a thread that it starts.
void Interposer::put_aside(std::unique_ptr<Work> work) {
  {
    const std::lock_guard lock(aside_mutex_);
    aside_.push_back(std::move(work));
  }
  stir();
}

void Interposer::start_what_is_aside() {
  std::vector<std::unique_ptr<Work>> works;
  {
    const std::lock_guard lock(aside_mutex_);
    works.swap(aside_);
  }
  for (auto& work : works) start_work(std::move(work));
  if (!setup_.errands) do_errand(false);
}

int Interposer::run_unfiltered(std::function<int()> errand) {
  if (!runs_) return errand();
  std::unique_lock lock(errand_mutex_);
  errand_ = std::move(errand);
  errand_result_ = -1;
  errand_given_.notify_all();
  stir();
  errand_done_.wait(lock, [this] { return errand_result_ >= 0; });
  return errand_result_;
}

void Interposer::do_errand(bool wait) {
  std::unique_lock lock(errand_mutex_);
  if (wait) errand_given_.wait(lock, [this] { return static_cast<bool>(errand_); });
  if (!errand_) return;
  const std::function<int()> errand = std::exchange(errand_, nullptr);
  lock.unlock();
  const int result = errand();
  lock.lock();
  errand_result_ = result;
  errand_done_.notify_all();
}

void* Interposer::errand_thread(void* self) {
  for (;;) static_cast<Interposer*>(self)->do_errand(true);
}

void* Interposer::answer_thread(void* self) {
  static_cast<Interposer*>(self)->answer_questions();
  return nullptr;
}

void* Interposer::catch_up_thread(void* self) {
  static_cast<Interposer*>(self)->keep_up();
  return nullptr;
}

void* Interposer::work_thread(void* work) {
  const std::unique_ptr<Work> w(static_cast<Work*>(work));
  w->interposer->work(*w);
  --w->interposer->working_;
  return nullptr;
}

void Interposer::answer_questions() {
  char go;
  if (read(handover_.get(), &go, 1) != 1) return;
  if (!real_root_) lower_rights();
  for (;;) {
    Question question;
    if (listener_->receive(&question)) {
      answer_one(question);
    } else if (errno != ENOENT && errno != EINTR) {
      return;
    }
  }
}

void Interposer::answer_one(const Question& question) {
  const InterposedCall* entry = interposed_call(question.number);
  Call call;
  if (entry == nullptr || question.tid == 0 || question.tid == own_pid_ || paused_ ||
      !reader_->read(question, *entry, &call)) {
    (void)listener_->let_pass(question);
    return;
  }
  const Recorder::Answering answering(*recorder_, &call);
  const auto rules = this->rules();
  if (call.kind == CallKind::name) {
    names_.answer(*listener_, call, *rules);
    return;
  }
  if (call.kind == CallKind::execute && is_32bit_program(call.path)) {
    Rule refuse;
    refuse.verdict = Verdict::deny;
    refuse.error = ENOEXEC;
    apply(&refuse, std::move(call));
    return;
  }
  const Rule* rule = nullptr;
  if (!rules->empty()) {
    const bool by_path = (rules->kinds_by_path() & kind_bit(call.kind)) != 0;
    const auto resolve = [by_path, &call](const std::string& path) {
      return by_path && !path.empty() && path[0] == '/' ? resolved_path(path, follows(call)) : path;
    };
    rule = rules->match(call, resolve(call.path), resolve(call.path2));
  }
  apply(rule, std::move(call));
}

// Answers, or sees to it that somebody does.
void Interposer::apply(const Rule* rule, Call call) {
  switch (rule == nullptr ? Verdict::pass : rule->verdict) {
    case Verdict::deny:
      if (setup_.recording != Recording::kNone) recorder_->write_answered(call, rule->error, {});
      (void)listener_->answer(call.question, 0, rule->error);
      if (idle_) stir();
      return;
    case Verdict::redirect: {
      auto work = std::make_unique<Work>();
      work->ask.call = std::move(call);
      work->ask.rule = *rule;
      start_work(std::move(work));
      return;
    }
    case Verdict::ask:
      if (hooked_) {
        asks_.add(std::move(call), *rule);
        eventfd_write(news_.get(), 1);
        stir();
        if (!hooked_) set_hooked(false);  // it has gone meanwhile
      } else {
        Rule fallback = *rule;
        fallback.verdict = rule->fallback;
        fallback.error = rule->fallback_error;
        apply(&fallback, std::move(call));
      }
      return;
    case Verdict::record:
      let_pass(std::move(call), true);
      return;
    case Verdict::silent:
      let_pass(std::move(call), false);
      return;
    case Verdict::pass:
      const bool wanted = recorder_->wants(call.kind);
      let_pass(std::move(call), wanted);
  }
}

// The caller waits for every step here: all that can be done later is.
void Interposer::let_pass(Call call, bool record) {
  const Question question = call.question;
  Watched watched;
  const bool watch = record && recorder_->look(std::move(call), &watched);
  if (!watch) {
    (void)listener_->let_pass(question);
    return;
  }
  const auto place = recorder_->watch(std::move(watched));
  recorder_->passed(place, listener_->let_pass(question));
  if (idle_) stir();
}

void Interposer::stir() { eventfd_write(stir_.get(), 1); }

void Interposer::apply_aside(Ask ask) {
  auto work = std::make_unique<Work>();
  work->ask = std::move(ask);
  put_aside(std::move(work));
}

void Interposer::start_work(std::unique_ptr<Work> work) {
  constexpr int kMostWorking = 512;
  work->interposer = this;
  const Question question = work->ask.call.question;
  if (++working_ <= kMostWorking && start_detached(work_thread, work.get()) == 0) {
    (void)work.release();
    return;
  }
  --working_;
  (void)listener_->answer(question, 0, EAGAIN);
}

void Interposer::work(Work& w) {
  const Question& question = w.ask.call.question;
  if (w.hook.verdict == HookVerdict::answer) {
    (void)listener_->answer(question, w.hook.value, 0);
    return;
  }
  if (w.hook.verdict == HookVerdict::inject) {
    const bool opens = w.ask.call.kind == CallKind::open || w.ask.call.kind == CallKind::read;
    const auto type = static_cast<int>(w.ask.call.argument(w.ask.call.entry->value + 1));
    const bool close_on_exec =
        ((opens ? w.ask.call.flags : type) & O_CLOEXEC) != 0;  // SOCK_CLOEXEC is the same
    if (!w.fd)
      (void)listener_->answer(question, 0, EBADF);
    else if (!listener_->inject(question, w.fd.get(), close_on_exec))
      (void)listener_->answer(question, 0, errno);  // its table is full; who has gone gets no answer
    return;
  }
  if (w.ask.rule.verdict != Verdict::redirect) {
    // It is made now, whenever it was asked about.
    const Recorder::Answering answering(*recorder_, &w.ask.call);
    apply(&w.ask.rule, std::move(w.ask.call));
    return;
  }
  if (const int error = become(question.tid); error != 0) {
    (void)listener_->answer(question, 0, error);
    return;
  }
  substitute(*listener_, std::move(w.ask.call), w.ask.rule, names_, *recorder_);
  stir();
}

// How long to wait: longer and longer while there is nothing new, so that who is busy is not disturbed by being woken,
// and who is idle costs nothing.
int Interposer::wait_ms(int* pause_ms) {
  constexpr int kMostPauseMs = 64;
  const bool rests = *pause_ms > kMostPauseMs;
  idle_ = rests;
  const bool behind = recorder_->behind();  // after it was said: what came before is not overlooked
  if (behind) idle_ = false;
  int wait = behind || !rests ? std::min(*pause_ms, kMostPauseMs) : -1;
  *pause_ms = std::min(*pause_ms * 2, 2 * kMostPauseMs);
  const int64_t deadline = asks_.next_deadline_ns();
  if (deadline == INT64_MAX) return wait;
  const int64_t left_ms = std::clamp<int64_t>((deadline - monotonic_ns()) / 1'000'000 + 1, 0, INT_MAX);
  return wait < 0 ? static_cast<int>(left_ms) : std::min(wait, static_cast<int>(left_ms));
}

void Interposer::keep_up() {
  if (!real_root_) lower_rights();
  int pause_ms = 1;
  uint64_t done = 0;
  for (;;) {
    pollfd p[] = {{asked_.get(), POLLIN, 0}, {stir_.get(), POLLIN, 0}};
    if (poll(p, 2, wait_ms(&pause_ms)) < 0 && errno != EINTR) return;
    idle_ = false;
    eventfd_t count;
    const bool stirred = (p[1].revents & POLLIN) != 0 && eventfd_read(stir_.get(), &count) == 0;
    const bool asked = (p[0].revents & POLLIN) != 0 && eventfd_read(asked_.get(), &count) == 0;
    const uint64_t request = requests_;
    full_ = !recorder_->catch_up(asked);
    const uint64_t now_done = recorder_->written();
    if (stirred || std::exchange(done, now_done) != now_done) pause_ms = 1;
    for (Ask& ask : asks_.take_due(monotonic_ns())) apply_aside(std::move(ask));
    start_what_is_aside();
    if (!asked) continue;
    done_ = request;
    eventfd_write(caught_up_.get(), 1);
  }
}

}  // namespace virt::init
