// How long to go on asking a server that fails: again after a pause, each longer than the one
// before, and never twice for what will not change.
#pragma once

#include <chrono>
#include <string>

#include "hub/http.h"
#include "hub/repository.h"

namespace tptrain::hub {

class Attempts {
 public:
  /// `what` is asked for, as a message says it: "model.safetensors of Qwen/Qwen2.5-0.5B".
  /// `patience`: attempts in a row that may bring nothing.
  Attempts(const Hub& hub, const Repository& repository, std::string what, int patience);

  /// Waits before the next attempt; throws where there is to be none: DataError where patience is
  /// at its end, ConfigError for what the hub refuses, with its reason and what to do.
  void failed(const HttpAnswer& answer, const std::string& error_body);
  /// Likewise for an answer that was not what it must be.
  void failed(const std::string& reason);
  /// The last attempt brought something: patience begins anew.
  void progress() { in_a_row_ = 0; }

 private:
  [[noreturn]] void refused(const HttpAnswer& answer, const std::string& reason);
  void pause(const std::string& reason, std::chrono::milliseconds at_least);

  const Hub& hub_;
  const Repository& repository_;
  std::string what_;
  int patience_;
  int in_a_row_ = 0;
};

}  // namespace tptrain::hub
