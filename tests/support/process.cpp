#include "support/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <utility>

namespace tptrain::testing {
namespace {

std::pair<int, std::filesystem::path> temporary_file() {
  std::string pattern = (std::filesystem::temp_directory_path() / "tptrain-output-XXXXXX").string();
  const int descriptor = mkstemp(pattern.data());
  if (descriptor < 0) throw std::runtime_error("mkstemp " + pattern);
  return {descriptor, pattern};
}

std::string text_of(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return std::move(text).str();
}

}  // namespace

Process::Process(const std::vector<std::string>& argv, const std::filesystem::path& directory) {
  const auto [output, output_file] = temporary_file();
  const auto [error, error_file] = temporary_file();
  output_file_ = output_file;
  error_file_ = error_file;
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  start_ = std::chrono::steady_clock::now();
  pid_ = fork();
  if (pid_ == 0) {
    setpgid(0, 0);
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(error, STDERR_FILENO);
    if (chdir(directory.c_str()) != 0) _exit(126);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  close(output);
  close(error);
  if (pid_ < 0) throw std::runtime_error("fork");
}

Process::~Process() {
  if (!reaped_) {
    signal_group(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  std::error_code ignored;
  std::filesystem::remove(output_file_, ignored);
  std::filesystem::remove(error_file_, ignored);
}

void Process::signal(int number) { kill(pid_, number); }
void Process::signal_group(int number) { kill(-pid_, number); }

ProcessResult Process::wait(std::chrono::seconds limit) {
  ProcessResult result;
  int status = 0;
  const auto begin = std::chrono::steady_clock::now();
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (!result.timed_out && std::chrono::steady_clock::now() - begin > limit) {
      result.timed_out = true;
      signal_group(SIGKILL);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  reaped_ = true;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.standard_output = text_of(output_file_);
  result.output = result.standard_output + text_of(error_file_);
  return result;
}

bool Process::has_ended() const {
  siginfo_t ended{};
  return reaped_ ||
         (waitid(P_PID, static_cast<id_t>(pid_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
          ended.si_pid == pid_);
}

ProcessResult run_process(const std::vector<std::string>& argv,
                          const std::filesystem::path& directory, std::chrono::seconds limit) {
  return Process(argv, directory).wait(limit);
}

}  // namespace tptrain::testing
