#include "base/watchdog.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <future>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/interruption.h"
#include "base/siblings.h"
#include "base/text.h"

namespace tptrain {

namespace {

using std::chrono::milliseconds;

// Often enough to be on time, seldom enough to cost nothing.
milliseconds look_every(milliseconds limit) {
  return std::clamp(limit / 20, milliseconds(5), milliseconds(1000));
}

// For saying what happened: a log on a file system that hangs must not keep the process alive.
constexpr auto kSayAtMost = std::chrono::seconds(5);
// mpirun kills the other ranks at the first exit. They have waited as long as this one: what each
// of them waited for shall be read as well.
constexpr auto kLetOthersSpeak = milliseconds(1500);

// Of a process that has failed and only has to clean up.
constexpr auto kEndWithin = std::chrono::seconds(20);

}  // namespace

StallClock::StallClock(Span limit, Span between_looks)
    : limit_(limit), between_looks_(between_looks) {}

std::optional<StallClock::Span> StallClock::look(const ProgressBoard::Entry& entry, Time now) {
  const bool progress = !last_look_ || entry.writes != writes_;
  // A look that comes far too late says that this process was held up, and with it what it waits
  // for may have been.
  const Span since = last_look_ ? std::min(now - *last_look_, 2 * between_looks_) : Span::zero();
  last_look_ = now;
  writes_ = entry.writes;
  stalled_ = progress ? Span::zero() : stalled_ + since;
  using Seconds = std::chrono::duration<double>;
  const Seconds allowed = entry.failure.empty() ? Seconds(limit_) * entry.patience
                                                : Seconds(std::min<Span>(limit_, kEndWithin));
  if (Seconds(stalled_) < allowed) return std::nullopt;
  return stalled_;
}

std::string stall_message(const ProgressBoard::Entry& entry, const StallSpeaker& speaker,
                          StallClock::Span stalled) {
  const auto ms = std::chrono::duration_cast<milliseconds>(stalled).count();
  const std::string time =
      ms < 10000 ? fixed(static_cast<double>(ms) / 1000, 1) : std::to_string((ms + 500) / 1000);
  if (!entry.failure.empty()) {
    return cat("[rank ", speaker.rank, "] ", entry.failure, "\n  (Its end hung for ", time,
               " s after this and was cut short.)");
  }
  const std::string remedy =
      speaker.behind.empty()
          ? "Compare this line of all ranks: one that is missing, or stands at another step or "
            "collective, is the one the others wait for."
          : "Look there first: the process, its GPU, the kernel's log of its host.";
  return cat(
      "[rank ", speaker.rank, "] ",
      CommError(problem(cat("no progress for ", time, " s", speaker.place, ": ", describe(entry),
                            speaker.behind.empty() ? "" : "; ", speaker.behind,
                            speaker.transport.empty() ? "" : "; ", speaker.transport))
                    .remedy(cat(remedy,
                                " Where a step takes that long, raise "
                                "train.hang_timeout_s; 0 switches this off.")))
          .what());
}

Watchdog::Watchdog(const ProgressBoard& board, Options options)
    : board_(board), options_(std::move(options)), thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Watchdog::watch() {
  // A signal to this process is for the thread that does the work: it may be sleeping in a call.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);

  std::unique_lock lock(mutex_);
  while (!done_) {
    changed_ = false;
    const Options options = options_;
    const milliseconds interval = look_every(options.limit);
    StallClock clock(options.limit, interval);
    const auto woken = [this] { return done_ || changed_; };
    if (options.limit == milliseconds::zero()) {
      wake_.wait(lock, woken);
      continue;
    }
    while (!wake_.wait_for(lock, interval, woken)) {
      ProgressBoard::Entry entry = board_.read();
      entry.writes += interruption_points_passed();
      if (options.show) options.show(entry);
      const auto stalled = clock.look(entry, std::chrono::steady_clock::now());
      if (stalled) end_process(entry, *stalled, options);
    }
  }
}

void Watchdog::set(Options options) {
  {
    const std::lock_guard lock(mutex_);
    options_ = std::move(options);
    changed_ = true;
  }
  wake_.notify_all();
}

void Watchdog::end_process(const ProgressBoard::Entry& entry, StallClock::Span stalled,
                           const Options& options) {
  const StallSpeaker speaker =
      options.look_around ? options.look_around() : StallSpeaker{.rank = options.rank};
  std::string message = stall_message(entry, speaker, stalled);
  // Before the ranks know of one another the kernel does.
  const std::string others = speaker.behind.empty() ? siblings_that_do_not_run() : std::string();
  if (!others.empty()) message += cat("\n  On this host ", others, ".");
  auto said = std::make_shared<std::promise<void>>();
  std::future<void> all_said = said->get_future();
  std::thread([said, message = std::move(message), also_say = options.also_say] {
    // Without stdio, whose lock the thread that hangs may hold.
    const std::string line = message + "\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
    try {
      if (also_say) also_say(message);
    } catch (const std::exception&) {
      // Standard error has it; a log that cannot be written is often what hangs.
    }
    std::fflush(nullptr);
    said->set_value();
  }).detach();
  all_said.wait_for(kSayAtMost);
  std::this_thread::sleep_for(kLetOthersSpeak);
  const bool failed = !entry.failure.empty();
  std::_Exit(static_cast<int>(failed ? entry.failure_code : ExitCode::communication));
}

}  // namespace tptrain
