#include "job.h"

#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>

#include "base/printable.h"
#include "base/terminal_colour.h"
#include "base/text.h"

namespace tptrain::apps {
namespace {

void print_error(const std::string& message) {
  std::fflush(stdout);
  std::fputs((error_text(printable(message), STDERR_FILENO) + "\n").c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace

int run_job(comm::MpiSession& session, const std::function<ExitCode()>& work) {
  ExitCode code = ExitCode::internal;
  std::string message;
  try {
    return static_cast<int>(work());
  } catch (const Error& error) {
    code = error.code();
    message = error.what();
    if (error.agreed()) {
      if (session.rank() == 0) print_error(message);
      session.barrier();  // mpirun kills the others at the first non-zero exit: the message comes
                          // first
      return static_cast<int>(code);
    }
  } catch (const std::exception& error) {
    message = cat("internal error: ", error.what());
  }
  print_error(session.size() > 1 ? cat("[rank ", session.rank(), "] ", message) : message);
  if (session.size() == 1) return static_cast<int>(code);
  session.abort(static_cast<int>(code));
}

}  // namespace tptrain::apps
