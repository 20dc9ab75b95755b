// Names against patterns, against the plain definition.
#include "base/wildcard.h"

#include <random>
#include <string>
#include <string_view>

#include "support/catch.h"

namespace tptrain {
namespace {

/// By definition: * is the empty text, or one character and * again.
bool matches_by_definition(const std::string& pattern, const std::string& name) {
  if (pattern.empty()) return name.empty();
  if (pattern[0] == '*') {
    return matches_by_definition(pattern.substr(1), name) ||
           (!name.empty() && matches_by_definition(pattern, name.substr(1)));
  }
  return !name.empty() && (pattern[0] == '?' || pattern[0] == name[0]) &&
         matches_by_definition(pattern.substr(1), name.substr(1));
}

}  // namespace

TEST_CASE("a pattern fits the whole name") {
  CHECK(matches_wildcards("*.bias", "a.bias"));
  CHECK(!matches_wildcards("bias", "a.bias"));
  CHECK(!matches_wildcards("a", "a.bias"));
  CHECK(matches_wildcards("model.layers.?.*", "model.layers.7.x"));
  CHECK(!matches_wildcards("model.layers.?.*", "model.layers.17.x"));
  CHECK(matches_wildcards("*", ""));
  CHECK(matches_wildcards("", ""));
  CHECK(!matches_wildcards("?", ""));
  CHECK(matches_wildcards("layers.[0-3].*", "layers.2.x"));
  CHECK(!matches_wildcards("layers.[0-3].*", "layers.4.x"));
  CHECK(matches_wildcards("layers.[!0-3].*", "layers.4.x"));
  CHECK(matches_wildcards("[]]", "]"));
  CHECK(matches_wildcards("[ab", "[ab"));  // not closed: characters themselves
  // Exponential where every * is tried again.
  CHECK(!matches_wildcards("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", std::string(4000, 'a')));
}

TEST_CASE("patterns fit as the definition of * and ? says") {
  std::mt19937 random(17);
  const auto text = [&](const std::string& letters, size_t longest) {
    std::string made(random() % (longest + 1), ' ');
    for (char& c : made) c = letters[random() % letters.size()];
    return made;
  };
  int fits = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::string pattern = text("ab*?", 6), name = text("ab", 7);
    const bool expected = matches_by_definition(pattern, name);
    fits += expected;
    INFO(pattern << " on " << name);
    REQUIRE(matches_wildcards(pattern, name) == expected);
  }
  CHECK(fits > 1000);
}

}  // namespace tptrain
