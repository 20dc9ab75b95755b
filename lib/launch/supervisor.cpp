#include "launch/supervisor.h"

#include <algorithm>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/host.h"
#include "base/stop.h"
#include "base/text.h"
#include "launch/attempts.h"
#include "launch/job.h"
#include "launch/outcome.h"

namespace tptrain::launch {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

// A host that boots, or a link that flaps, is waited for so long before the run does without it.
constexpr seconds kHostMayTake{10};
constexpr seconds kHostAnswersWithin{5};
// The ranks of a host that was cut off end by their own watchdog or mpirun's; until then one of
// them may hold run_dir.
constexpr seconds kRunDirIsFree{60};
// A signal may come while mpirun is starting its ranks, and be lost.
constexpr seconds kAskAgain{5};
constexpr milliseconds kPollPeriod{100};
constexpr milliseconds kLongestPause{8000};

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

bool is_here(const std::string& host) {
  const std::string own = host_name();
  return host == "localhost" || host == own || host == own.substr(0, own.find('.'));
}

std::vector<std::string> words_in(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

class Supervisor {
 public:
  Supervisor(const LaunchOptions& options, const Surroundings& surroundings)
      : options_(options), around_(surroundings), attempts_(options.run_dir) {}

  int run() {
    for (int64_t restarts = 0;; ++restarts) {
      const std::optional<Place> place = find_place();
      if (stop_requested()) return static_cast<int>(ExitCode::stopped);
      if (!place) return give_up_without_hosts();
      const Outcome outcome = start(*place, restarts);
      if (outcome.meaning != Meaning::restart || restarts == options_.max_restarts)
        return outcome.exit_code;
      pause(restarts);
      wait_for_run_dir();
      if (stop_requested()) return outcome.exit_code;
    }
  }

 private:
  struct Place {
    Ranks ranks;
    std::vector<Host> hosts;
  };

  Outcome start(const Place& place, int64_t restarts) {
    const CommandLine command = command_for(place);
    around_.say(cat("start ", restarts + 1, " of at most ", options_.max_restarts + 1, ": ",
                    join(command.words, " ")));
    Attempt attempt{.number = restarts + 1,
                    .began = seconds_since_1970(),
                    .ranks = place.ranks.count,
                    .hosts = place.hosts,
                    .from_step = around_.newest_step()};
    Outcome outcome = run_job(command);
    attempt.ended = seconds_since_1970();
    outcome.why += silence_of(place, outcome);
    attempt.exit_code = outcome.exit_code;
    attempt.why = outcome.why;
    attempt.step = around_.newest_step();
    attempt.then = what_follows(outcome, restarts);
    if (outcome.meaning != Meaning::done)
      around_.say(cat(outcome.why, " (exit code ", outcome.exit_code, "): ", attempt.then,
                      attempt.step ? cat("; the newest checkpoint is of step ", *attempt.step)
                                   : std::string("; there is no checkpoint yet")));
    const std::string lost = attempts_.add(attempt);
    if (!lost.empty()) around_.say(cat("WARNING: ", lost));
    return outcome;
  }

  Outcome run_job(const CommandLine& command) {
    Job job(command);
    std::optional<Clock::time_point> asked;
    const Job::End end = job.wait([&] {
      if (!stop_requested()) return;
      if (asked && Clock::now() - *asked < kAskAgain) return;
      if (!asked) around_.say(cat(stop_reason(), ": the ranks are asked to stop"));
      asked = Clock::now();
      job.ask_to_stop();
    });
    return outcome_of(end.code, end.hung, asked.has_value());
  }

  /// mpirun does not always say which host it has lost. Where a rank was killed it was none.
  std::string silence_of(const Place& place, const Outcome& outcome) const {
    if (outcome.meaning != Meaning::restart || is_by_signal(outcome.exit_code)) return {};
    const std::vector<std::string> silent = silent_among(place.hosts);
    if (silent.empty()) return {};
    return cat("; no answer comes from ", silent.size() == 1 ? "host " : "hosts ", join(silent));
  }

  std::string what_follows(const Outcome& outcome, int64_t restarts) const {
    switch (outcome.meaning) {
      case Meaning::done:
        return "done";
      case Meaning::stopped:
        return "stopped";
      case Meaning::final:
        return "a restart would not mend it";
      case Meaning::restart:
        return restarts == options_.max_restarts ? "gave up after the last restart" : "restarts";
    }
    throw InternalError(problem("an outcome without a meaning"));
  }

  CommandLine command_for(const Place& place) const {
    MpirunOptions mpirun{.ranks = place.ranks.count,
                         .hosts = place.hosts,
                         .agent = options_.agent,
                         .wrapper = options_.wrapper,
                         .forwarded = variables_of_a_run(),
                         .program = options_.program};
    for (const std::string& set : place.ranks.sets) {
      mpirun.program.push_back("--set");
      mpirun.program.push_back(set);
    }
    return mpirun_command(mpirun, around_.machine);
  }

  /// Where the job can run now. Nothing: nowhere as the user wants it.
  std::optional<Place> find_place() const {
    if (options_.hosts.empty()) return place_here();
    for (const Clock::time_point begin = Clock::now();;) {
      const std::vector<Host> answering = hosts_that_answer();
      const bool all = answering.size() == options_.hosts.size();
      if (all || stop_requested() || Clock::now() - begin > kHostMayTake)
        return place_on(answering, all);
      std::this_thread::sleep_for(kPollPeriod);
    }
  }

  std::optional<Place> place_here() const {
    const int64_t available = around_.gpus_here().value_or(options_.ranks);
    // Fewer GPUs than ranks and no leave to shrink: the program says what is wrong.
    if (options_.least_ranks == options_.ranks)
      return Place{.ranks = {options_.ranks}, .hosts = {}};
    const std::optional<Ranks> ranks =
        ranks_for(options_.layout, options_.ranks, options_.least_ranks, available);
    if (!ranks) return std::nullopt;
    if (ranks->count < options_.ranks)
      around_.say(cat("this host has ", available, " GPUs: goes on with ", ranks->count, " of ",
                      options_.ranks, " ranks"));
    return Place{.ranks = *ranks, .hosts = {}};
  }

  std::optional<Place> place_on(const std::vector<Host>& answering, bool all) const {
    const int64_t tp = options_.layout.tp_size;
    const int64_t available = all ? options_.ranks : whole_groups_on(answering, tp);
    const std::optional<Ranks> ranks =
        ranks_for(options_.layout, options_.ranks, options_.least_ranks, available);
    if (!ranks) return std::nullopt;
    const std::vector<Host> shares = share_out(answering, ranks->count, tp);
    if (ranks->count < options_.ranks)
      around_.say(cat("not every host answers: goes on with ", ranks->count, " of ", options_.ranks,
                      " ranks, on ", text_of(shares)));
    return Place{.ranks = *ranks, .hosts = shares};
  }

  std::vector<Host> hosts_that_answer() const {
    std::vector<Host> answering;
    for (const Host& host : options_.hosts)
      if (answers(host.name)) answering.push_back(host);
    return answering;
  }

  std::vector<std::string> silent_among(const std::vector<Host>& hosts) const {
    std::vector<std::string> silent;
    for (const Host& host : hosts)
      if (!answers(host.name)) silent.push_back(host.name);
    return silent;
  }

  bool answers(const std::string& host) const {
    if (is_here(host)) return true;
    std::vector<std::string> words =
        words_in(options_.agent.empty() ? "ssh -o BatchMode=yes" : options_.agent);
    words.push_back(host);
    words.push_back("true");
    return succeeds(words, kHostAnswersWithin);
  }

  int give_up_without_hosts() const {
    const std::vector<std::string> silent = silent_among(options_.hosts);
    around_.say(cat("gives up: ",
                    options_.hosts.empty() ? std::string("too few GPUs are left")
                    : silent.empty()       ? std::string("a host came back too late")
                                           : cat(join(silent), " does not answer"),
                    ", and --min-ranks ", options_.least_ranks,
                    " with this layout and global batch leaves no smaller number of ranks"));
    return static_cast<int>(ExitCode::communication);
  }

  // The first restart comes at once; a job that dies again and again is not started in a circle.
  void pause(int64_t restarts) const {
    const milliseconds length =
        restarts == 0 ? milliseconds(0)
                      : std::min(milliseconds(500) * (int64_t{1} << std::min<int64_t>(restarts, 5)),
                                 kLongestPause);
    for (const Clock::time_point begin = Clock::now();
         Clock::now() - begin < length && !stop_requested();)
      std::this_thread::sleep_for(kPollPeriod);
  }

  // Else the next start would find run_dir in use, which is an error that no restart mends.
  void wait_for_run_dir() const {
    const std::filesystem::path path = options_.run_dir / ".lock";
    bool said = false;
    for (const Clock::time_point begin = Clock::now();
         Clock::now() - begin < kRunDirIsFree && !stop_requested();) {
      std::error_code missing;
      if (!std::filesystem::exists(path, missing)) return;
      try {
        const FileLock lock(path);
        return;
      } catch (const Error& error) {
        if (!std::exchange(said, true))
          around_.say(cat("waits for what is left of the last start: ", error.what()));
      }
      std::this_thread::sleep_for(kPollPeriod);
    }
  }

  const LaunchOptions& options_;
  const Surroundings& around_;
  AttemptLog attempts_;
};

}  // namespace

int supervise(const LaunchOptions& options, const Surroundings& surroundings) {
  return Supervisor(options, surroundings).run();
}

}  // namespace tptrain::launch
