#include "config/path_text.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "base/text.h"

namespace tptrain::config {
namespace {

// As a shell finds it: HOME, else what the user database says.
std::string home_directory() {
  if (const char* home = std::getenv("HOME"); home != nullptr && home[0] == '/') return home;
  passwd entry{};
  passwd* found = nullptr;
  char buffer[4096];
  if (getpwuid_r(getuid(), &entry, buffer, sizeof buffer, &found) != 0 || found == nullptr) {
    return "";
  }
  return found->pw_dir != nullptr && found->pw_dir[0] == '/' ? found->pw_dir : "";
}

}  // namespace

std::optional<std::string> path_from_text(const std::string& name, const std::string& text,
                                          const std::string& place,
                                          std::vector<Problem>& problems) {
  const auto refuse = [&](const std::string& constraint, const std::string& remedy) {
    problems.push_back(problem(cat(name, " is ", text)).at(place).must(constraint).remedy(remedy));
    return std::nullopt;
  };
  if (text.starts_with("hf://")) {
    return refuse("be a path: a run fetches nothing by itself",
                  cat("Fetch it first, and write the folder that it names: tptrain fetch ",
                      text.substr(std::string_view("hf://").size())));
  }
  if (text.find('$') != std::string::npos) {
    return refuse("be without $: no shell reads a run file, so that variables stay as they are",
                  "Write the path out (~ at its start is the home directory), or let the shell "
                  "give it, as in --set run_dir=\"$SCRATCH/run\".");
  }
  if (text.empty() || text[0] != '~') return text;
  if (text.size() > 1 && text[1] != '/') {
    return refuse(
        "begin with ~/ for the home directory: those of other users are not looked up",
        cat("Write that directory out; for a name that begins with ~, write ./", text, "."));
  }
  const std::string home = home_directory();
  if (home.empty()) {
    return refuse("be written out: neither HOME nor the user database names a home directory",
                  "Write the path from / on.");
  }
  const std::string below = text.substr(1);  // "" or "/..."
  return home == "/" && !below.empty() ? below : home + below;
}

}  // namespace tptrain::config
