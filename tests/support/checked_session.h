// How the mains run Catch2, so that green means checked: a test in which nothing is asserted fails,
// and so does a run in which no test is chosen. A test that applies to some numbers of ranks alone
// says so by a tag of kForRanks, [ranks:4] or [ranks:2+], and is not run with others (and so counts
// as what it is: not there).
#pragma once

#include <string>
#include <vector>

namespace tptrain::testing {

/// Whether rank 0 must assert something in each test; other ranks may leave that to it.
enum class Asserts { in_each_test, perhaps };

struct ForRanks {
  const char* tag;
  int least;
  int most;
};
inline constexpr ForRanks kForRanks[] = {
    {"[ranks:2]", 2, 2}, {"[ranks:2+]", 2, 1 << 20}, {"[ranks:4]", 4, 4}};

/// Runs the tests that the arguments choose, less those that do not apply to `ranks` ranks.
inline int run_tests(int argc, char** argv, int ranks, Asserts asserts) {
  Catch::Session session;
  if (const int refused = session.applyCommandLine(argc, argv); refused != 0) return refused;
  auto& config = session.configData();
#if __has_include(<catch2/catch_all.hpp>)
  constexpr int kNoTests = 0;  // v3 asks for it by itself
#else
  constexpr int kNoTests = Catch::WarnAbout::NoTests;
#endif
  int warnings = config.warnings | kNoTests;
  if (asserts == Asserts::in_each_test) warnings |= Catch::WarnAbout::NoAssertions;
  config.warnings = static_cast<decltype(config.warnings)>(warnings);

  std::vector<std::string> others;
  for (const ForRanks& tag : kForRanks) {
    if (ranks < tag.least || ranks > tag.most) others.push_back("~" + std::string(tag.tag));
  }
  // A comma separates alternatives, and what is left out must be left out of each.
  std::vector<std::string> chosen;
  const auto end_alternative = [&] { chosen.insert(chosen.end(), others.begin(), others.end()); };
  for (const std::string& argument : config.testsOrTags) {
    size_t begin = 0;
    for (size_t comma; (comma = argument.find(',', begin)) != std::string::npos;) {
      chosen.push_back(argument.substr(begin, comma - begin));
      end_alternative();
      chosen.push_back(",");
      begin = comma + 1;
    }
    chosen.push_back(argument.substr(begin));
  }
  end_alternative();
  config.testsOrTags = chosen;
  return session.run();
}

}  // namespace tptrain::testing
