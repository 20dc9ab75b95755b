#include "launch/job.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "base/processes.h"
#include "base/text.h"

namespace tptrain::launch {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kTick{20};
constexpr milliseconds kBetweenLooks{1000};
// Ranks may die as soon as they are there: an mpirun that hangs then must have been seen with them.
constexpr milliseconds kBetweenFirstLooks{50};
// mpirun ends about a second after its ranks; one that waits for a host it has lost never does, nor
// one whose rank went while it was making itself known (Open MPI 4.1).
constexpr seconds kMpirunOutlivesRanks{6};
// Of a killed process: one that waits for a disk or a driver goes when that answers.
constexpr seconds kKilledIsGone{15};

std::vector<char*> pointers_to(const std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

/// Between fork and exec. The signals that this process heeds get their usual meaning back.
[[noreturn]] void become(const CommandLine& command, const std::vector<char*>& words,
                         int tell_failure) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int nothing = open("/dev/null", O_RDONLY);
  if (nothing >= 0) dup2(nothing, STDIN_FILENO);
  for (const auto& [name, value] : command.environment) setenv(name.c_str(), value.c_str(), 1);
  execvp(words[0], words.data());
  const int error = errno;
  [[maybe_unused]] const ssize_t told = write(tell_failure, &error, sizeof error);
  _exit(127);
}

int exit_code_of(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/// Whoever this process has become the parent of: ranks whose mpirun is gone.
void kill_orphans() {
  const Clock::time_point begin = Clock::now();
  while (Clock::now() - begin < kKilledIsGone) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    const std::vector<pid_t> left = children_of(getpid());
    if (left.empty()) return;
    for (const pid_t child : left) kill(child, SIGKILL);
    std::this_thread::sleep_for(kTick);
  }
}

}  // namespace

Job::Job(const CommandLine& command) {
  // Ranks outlive an mpirun that is killed by a second or so; they come to this process then.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  int failure[2];
  if (pipe2(failure, O_CLOEXEC) != 0)
    throw InternalError(problem(cat("pipe: ", std::strerror(errno))));
  const std::vector<char*> words = pointers_to(command.words);
  mpirun_ = fork();
  if (mpirun_ == 0) become(command, words, failure[1]);
  close(failure[1]);
  int error = mpirun_ < 0 ? errno : 0;
  if (mpirun_ > 0 && read(failure[0], &error, sizeof error) <= 0) error = 0;
  close(failure[0]);
  if (error == 0) return;
  if (mpirun_ > 0) waitpid(mpirun_, nullptr, 0);
  throw ConfigError(problem(cat("cannot be started: ", std::strerror(error)))
                        .at(command.words[0])
                        .remedy("tptrain launch starts the ranks with Open MPI's mpirun: install "
                                "it, or put it on the PATH (docs/installing.md)."));
}

Job::~Job() {
  if (!ended_) {
    kill(mpirun_, SIGKILL);
    waitpid(mpirun_, nullptr, 0);
  }
  kill_orphans();
}

void Job::ask_to_stop() { kill(mpirun_, SIGUSR1); }

// Only where ranks run on this host: of others' nothing is seen.
bool Job::outlived_its_ranks() {
  const Clock::time_point now = Clock::now();
  if (now - last_look_ < (ranks_seen_ ? kBetweenLooks : kBetweenFirstLooks)) return false;
  last_look_ = now;
  bool any = false;
  for (const pid_t child : children_of(mpirun_)) any = any || !rank_of_process(child).empty();
  if (any) {
    ranks_seen_ = true;
    ranks_last_seen_ = now;
  }
  return ranks_seen_ && now - ranks_last_seen_ > kMpirunOutlivesRanks;
}

// Its job is gone, and asked to end it only says that it is about to.
void Job::end_mpirun() {
  kill(mpirun_, SIGKILL);
  waitpid(mpirun_, nullptr, 0);
}

Job::End Job::wait(const std::function<void()>& meanwhile) {
  End end;
  int status = 0;
  while (waitpid(mpirun_, &status, WNOHANG) != mpirun_) {
    meanwhile();
    if (outlived_its_ranks()) {
      end_mpirun();
      end.hung = true;
      break;
    }
    std::this_thread::sleep_for(kTick);
  }
  ended_ = true;
  end.code = end.hung ? static_cast<int>(ExitCode::communication) : exit_code_of(status);
  kill_orphans();
  return end;
}

bool succeeds(const std::vector<std::string>& words, milliseconds limit) {
  const std::vector<char*> pointers = pointers_to(words);
  const pid_t child = fork();
  if (child < 0) return false;
  if (child == 0) {
    setpgid(0, 0);
    const int nothing = open("/dev/null", O_RDWR);
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(nothing, stream);
    execvp(pointers[0], pointers.data());
    _exit(127);
  }
  int status = 0;
  for (const Clock::time_point begin = Clock::now(); Clock::now() - begin < limit;) {
    if (waitpid(child, &status, WNOHANG) == child) return exit_code_of(status) == 0;
    std::this_thread::sleep_for(kTick);
  }
  kill(-child, SIGKILL);
  waitpid(child, nullptr, 0);
  return false;
}

}  // namespace tptrain::launch
