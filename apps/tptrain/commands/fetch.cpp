// tptrain fetch: a repository of the Hugging Face hub -> a folder.
#include "hub/fetch.h"

#include <iostream>

#include "base/error.h"
#include "base/printable.h"
#include "base/text.h"
#include "commands/commands.h"
#include "tool_display.h"

namespace tptrain::apps {
namespace {

/// models/Qwen2.5-0.5B: where README and configs/ look for it.
std::string default_out(const hub::Repository& repository) {
  return cat(repository.kind == hub::RepositoryKind::dataset ? "data/" : "models/",
             repository.short_name());
}

}  // namespace

int run_fetch(const FetchCommand& command) {
  hub::FetchOptions options{.repository = hub::parse_repository(command.name),
                            .include = command.include,
                            .out = command.out,
                            .overwrite = command.overwrite};
  if (!command.revision.empty()) {
    hub::check_revision(command.revision);
    options.repository.revision = command.revision;
  }
  if (options.out.empty()) options.out = default_out(options.repository);
  hub::Fetched fetched;
  {
    const ToolDisplay display;
    fetched = hub::fetch(hub::hub_of_environment(), options, [](const std::string& line) {
      std::cout << printable_line(line) << std::endl;  // before what may take hours
    });
  }
  std::cout << printable_line(options.out) << ": " << fetched.files
            << (fetched.files == 1 ? " file, " : " files, ") << human_bytes(fetched.bytes)
            << ", each as the hub has it";
  if (fetched.files_there > 0) std::cout << "; " << fetched.files_there << " of them were there";
  if (fetched.bytes_resumed > 0)
    std::cout << "; " << human_bytes(fetched.bytes_resumed) << " were left by an earlier attempt";
  std::cout << "\n";
  return static_cast<int>(ExitCode::done);
}

}  // namespace tptrain::apps
