#include "config/yaml_document.h"

#include <yaml-cpp/eventhandler.h>

#include <sstream>

#include "base/text.h"
#include "config/utf8_check.h"

namespace tptrain::config {
namespace {

// Where a second document begins: behind ---, or at characters that cannot belong to the first.
// YAML::LoadAll is not used: in yaml-cpp 0.7 it never ends on such characters, as in ",a: b", since
// no document consumes them.
std::optional<YAML::Mark> second_document(const std::string& text) {
  struct Starts final : YAML::EventHandler {
    void OnDocumentStart(const YAML::Mark& mark) override { latest = mark; }
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
    void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
    void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  const std::string&) override {}
    void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                         YAML::EmitterStyle::value) override {}
    void OnSequenceEnd() override {}
    void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                    YAML::EmitterStyle::value) override {}
    void OnMapEnd() override {}
    YAML::Mark latest;
  };
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  Starts starts;
  if (!parser.HandleNextDocument(starts) || !parser.HandleNextDocument(starts)) {
    return std::nullopt;
  }
  return starts.latest;
}

}  // namespace

std::optional<YAML::Node> load_document(const std::string& text, const PlaceOf& place_of,
                                        const std::string& remedy, std::vector<Problem>& problems) {
  if (const std::optional<BadByte> bad = find_bad_byte(text)) {
    YAML::Mark mark;
    mark.line = bad->line;
    mark.column = bad->column;
    constexpr const char* kDigits = "0123456789ABCDEF";
    problems.push_back(
        problem(cat("there is the byte 0x", kDigits[bad->byte / 16], kDigits[bad->byte % 16]))
            .at(place_of(mark))
            .must("be text in UTF-8, without control characters")
            .remedy("Save the text as UTF-8."));
    return std::nullopt;
  }
  try {
    const YAML::Node first = YAML::Load(text);
    const std::optional<YAML::Mark> rest = second_document(text);
    if (!rest) return first;
    problems.push_back(problem("the text goes on after its first YAML document")
                           .at(place_of(*rest))
                           .must("be one document")
                           .remedy("Remove the line of --- before this place, or the "
                                   "characters here that belong to no key."));
    return std::nullopt;
  } catch (const YAML::Exception& e) {
    problems.push_back(
        problem(cat("this is not valid YAML: ", e.msg)).at(place_of(e.mark)).remedy(remedy));
    return std::nullopt;
  }
}

}  // namespace tptrain::config
