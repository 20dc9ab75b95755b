#include "support/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace tptrain::testing {

Process::Process(const std::vector<std::string>& argv, const std::filesystem::path& directory) {
  std::string pattern = (std::filesystem::temp_directory_path() / "tptrain-output-XXXXXX").string();
  const int output = mkstemp(pattern.data());
  if (output < 0) throw std::runtime_error("mkstemp " + pattern);
  output_file_ = pattern;
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  start_ = std::chrono::steady_clock::now();
  pid_ = fork();
  if (pid_ == 0) {
    setpgid(0, 0);
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    if (chdir(directory.c_str()) != 0) _exit(126);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  close(output);
  if (pid_ < 0) throw std::runtime_error("fork");
}

Process::~Process() {
  if (!reaped_) {
    signal_group(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  std::error_code ignored;
  std::filesystem::remove(output_file_, ignored);
}

void Process::signal(int number) { kill(pid_, number); }
void Process::signal_group(int number) { kill(-pid_, number); }

ProcessResult Process::wait(std::chrono::seconds limit) {
  ProcessResult result;
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (!result.timed_out && std::chrono::steady_clock::now() - start_ > limit) {
      result.timed_out = true;
      signal_group(SIGKILL);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  reaped_ = true;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  std::ostringstream text;
  text << std::ifstream(output_file_).rdbuf();
  result.output = std::move(text).str();
  return result;
}

ProcessResult run_process(const std::vector<std::string>& argv, std::chrono::seconds limit,
                          const std::filesystem::path& directory) {
  return Process(argv, directory).wait(limit);
}

}  // namespace tptrain::testing
