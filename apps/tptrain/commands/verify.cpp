// tptrain verify: are these checkpoints whole? Reads every byte of them.
#include <iostream>

#include "base/error.h"
#include "base/printable.h"
#include "base/text.h"
#include "checkpoint/find_checkpoints.h"
#include "commands/commands.h"
#include "tool_display.h"

namespace tptrain::apps {

int run_verify(const VerifyCommand& command) {
  const ToolDisplay display;
  const auto verdicts = checkpoint::find_checkpoints(command.path, checkpoint::Depth::contents);
  size_t valid = 0;
  for (const checkpoint::Verdict& verdict : verdicts) {
    const std::string path = printable_line(verdict.path.string());
    if (!verdict.problem.empty() || !verdict.info) {
      std::cout << "BAD  " << path << ": " << printable_line(verdict.problem) << "\n";
      continue;
    }
    ++valid;
    const checkpoint::CheckpointInfo& info = *verdict.info;
    std::cout << "OK   " << path << ": step " << info.state.step << ", save " << info.save_sequence
              << ", " << with_thousands(info.state.tokens_seen) << " tokens seen\n";
  }
  const size_t bad = verdicts.size() - valid;
  if (verdicts.size() > 1) std::cout << valid << " valid, " << bad << " not\n";
  return static_cast<int>(bad == 0 ? ExitCode::done : ExitCode::checkpoint);
}

}  // namespace tptrain::apps
