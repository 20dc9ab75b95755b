#include "config/yaml_document.h"

#include <yaml-cpp/depthguard.h>
#include <yaml-cpp/eventhandler.h>

#include <sstream>

#include "base/hex.h"
#include "base/text.h"
#include "config/keys.h"
#include "config/utf8_check.h"

namespace tptrain::config {
namespace {

// A run file has some hundred values, and lists of files may have thousands; yaml-cpp takes about a
// kilobyte a value.
constexpr int64_t kMostValues = 100000;

// One pass over the text before its tree is made: how many values it has, and where a second
// document begins, behind --- or at characters that cannot belong to the first. YAML::LoadAll is
// not used: in yaml-cpp 0.7 it never ends on such characters, as in ",a: b", since no document
// consumes them.
class Survey final : public YAML::EventHandler {
 public:
  struct TooManyValues {
    YAML::Mark mark;
  };

  /// Throws YAML::Exception where the text is not valid, and TooManyValues.
  explicit Survey(const std::string& text) {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    if (parser.HandleNextDocument(*this) && parser.HandleNextDocument(*this)) second_ = latest_;
  }
  const std::optional<YAML::Mark>& second_document() const { return second_; }

  void OnDocumentStart(const YAML::Mark& mark) override { latest_ = mark; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { count(mark); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { count(mark); }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                const std::string&) override {
    count(mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    count(mark);
  }
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    count(mark);
  }
  void OnMapEnd() override {}

 private:
  void count(const YAML::Mark& mark) {
    if (++values_ > kMostValues) throw TooManyValues{mark};
  }

  int64_t values_ = 0;
  YAML::Mark latest_;
  std::optional<YAML::Mark> second_;
};

// The first tab that a line is indented with, up to a line: YAML forbids it, and yaml-cpp says
// something else.
std::optional<YAML::Mark> indenting_tab(const std::string& text, int last_line) {
  std::istringstream lines(text);
  std::string line;
  YAML::Mark mark;
  for (mark.line = 0; mark.line <= last_line && std::getline(lines, line); ++mark.line) {
    const size_t tab = line.find_first_not_of(' ');
    if (tab == std::string::npos || line[tab] != '\t') continue;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    mark.column = static_cast<int>(tab);
    return mark;
  }
  return std::nullopt;
}

// What yaml-cpp leaves unsaid, or says in words of its own source.
Problem invalid_yaml(const YAML::Exception& e, const std::string& remedy) {
  if (dynamic_cast<const YAML::DeepRecursion*>(&e) != nullptr) {
    return problem("lists and mappings are nested hundreds of levels deep")
        .must("be nested no deeper than a run file is, which has four levels");
  }
  if (e.msg.starts_with(YAML::ErrorMsg::INVALID_UNICODE)) {
    return problem("an escape within double quotes names no character")
        .must(
            "name one up to U+10FFFF: \\ud800 to \\udfff are halves of pairs, which JSON has and "
            "YAML has not")
        .remedy("Write the character itself, or its one number: \\U0001F600 for \\ud83d\\ude00.");
  }
  return problem(cat("this is not valid YAML: ", shown(e.msg))).remedy(remedy);
}

}  // namespace

std::optional<YAML::Node> load_document(const std::string& text, const PlaceOf& place_of,
                                        const std::string& remedy, std::vector<Problem>& problems) {
  if (const std::optional<BadByte> bad = find_bad_byte(text)) {
    YAML::Mark mark;
    mark.line = bad->line;
    mark.column = bad->column;
    problems.push_back(
        problem(cat("there is the byte 0x", to_hex(bad->byte, 2, HexCase::upper)))
            .at(place_of(mark))
            .must("be text in UTF-8, without control characters")
            .remedy(text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF")
                        ? "It seems to be UTF-16: save it as UTF-8, for example with iconv -f "
                          "utf-16 -t utf-8."
                    : bad->byte == 0xED
                        ? "Half of a surrogate pair stands here: save the text as UTF-8, "
                          "each character whole."
                        : "Save the text as UTF-8."));
    return std::nullopt;
  }
  try {
    const std::optional<YAML::Mark> rest = Survey(text).second_document();
    if (!rest) return YAML::Load(text);
    problems.push_back(problem("the text goes on after its first YAML document")
                           .at(place_of(*rest))
                           .must("be one document")
                           .remedy("Remove the line of --- before this place, or the "
                                   "characters here that belong to no key."));
    return std::nullopt;
  } catch (const Survey::TooManyValues& e) {
    problems.push_back(problem(cat("here begins value ", kMostValues + 1))
                           .at(place_of(e.mark))
                           .must(cat("have at most ", kMostValues, " keys and values"))
                           .remedy("Name many files by a glob or by their folder."));
    return std::nullopt;
  } catch (const YAML::Exception& e) {
    if (const std::optional<YAML::Mark> tab = indenting_tab(text, e.mark.line)) {
      problems.push_back(problem("the line is indented with a tab")
                             .at(place_of(*tab))
                             .must("be indented with spaces")
                             .remedy("Two spaces a level; an editor can be told to write them."));
      return std::nullopt;
    }
    problems.push_back(invalid_yaml(e, remedy).at(place_of(e.mark)));
    return std::nullopt;
  }
}

}  // namespace tptrain::config
