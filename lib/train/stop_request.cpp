#include "train/stop_request.h"

#include <csignal>

namespace tptrain::train {
namespace {

// A signal handler can reach nothing but static storage.
volatile std::sig_atomic_t signal_seen = 0;
void on_signal(int) { signal_seen = 1; }
struct sigaction former_term;
struct sigaction former_user;

}  // namespace

StopRequest::StopRequest() {
  signal_seen = 0;
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // file I/O and MPI under way go on
  sigaction(SIGTERM, &action, &former_term);
  sigaction(SIGUSR1, &action, &former_user);
}

StopRequest::~StopRequest() {
  sigaction(SIGTERM, &former_term, nullptr);
  sigaction(SIGUSR1, &former_user, nullptr);
}

bool StopRequest::requested() const { return signal_seen != 0; }

}  // namespace tptrain::train
