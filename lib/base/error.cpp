#include "base/error.h"

#include <utility>

#include "base/printable.h"
#include "base/text.h"

namespace tptrain {

Problem& Problem::at(std::string place) & {
  where = std::move(place);
  return *this;
}
Problem&& Problem::at(std::string place) && { return std::move(at(std::move(place))); }
Problem& Problem::must(std::string text) & {
  constraint = std::move(text);
  return *this;
}
Problem&& Problem::must(std::string text) && { return std::move(must(std::move(text))); }
Problem& Problem::remedy(std::string text) & {
  fix = std::move(text);
  return *this;
}
Problem&& Problem::remedy(std::string text) && { return std::move(remedy(std::move(text))); }

std::string Problem::text() const {
  // Names and values in it come from files: here is where none of them gets at the terminal.
  std::string out;
  if (!where.empty()) out += printable_line(where) + ": ";
  out += printable(received);
  if (!constraint.empty()) out += ": it must " + printable(constraint);
  out += ".";
  if (!fix.empty()) out += "\n  " + printable(fix);
  return out;
}

Problem problem(std::string received) {
  Problem p;
  p.received = std::move(received);
  return p;
}

namespace {

// Each problem is a message of its own, so that a file with three errors reads as three.
std::string message_of(std::string_view kind, const std::vector<Problem>& problems) {
  std::vector<std::string> texts;
  for (const Problem& p : problems) texts.push_back(cat(kind, ": ", p.text()));
  return join(texts, "\n");
}

}  // namespace

Error::Error(ExitCode code, std::string_view kind, const std::vector<Problem>& problems)
    : std::runtime_error(message_of(kind, problems)), code_(code) {}

Error::Error(ExitCode code, std::string message)
    : std::runtime_error(std::move(message)), code_(code) {}

}  // namespace tptrain
