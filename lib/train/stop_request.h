// SIGTERM and SIGUSR1 as a wish to stop at the next step boundary with the state saved (exit code
// 75).
#pragma once

namespace tptrain::train {

/// Installs the handlers for the life of the object, then puts the former ones back. One at a time.
class StopRequest {
 public:
  StopRequest();
  ~StopRequest();
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;
  /// True once one of the signals has come to this process.
  bool requested() const;
};

}  // namespace tptrain::train
