#include "comm/control.h"

#include <charconv>
#include <exception>
#include <string_view>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::comm {

namespace {

// What a rank tells the others: nothing where it succeeded, else "<exit code>\n<message>".
std::string outcome_of(const std::function<void()>& work) {
  const auto failed = [](ExitCode code, std::string_view message) {
    return cat(static_cast<int>(code), "\n", message);
  };
  try {
    work();
    return {};
  } catch (const Error& error) {
    return failed(error.code(), error.what());
  } catch (const std::exception& error) {
    return failed(ExitCode::internal, InternalError(problem(error.what())).what());
  } catch (...) {
    return failed(ExitCode::internal,
                  InternalError(problem("an exception that is no std::exception")).what());
  }
}

// "data error: ..." becomes "data error: [rank 3] ...", unless it says so already.
std::string with_rank(const std::string& message, size_t rank) {
  constexpr std::string_view kMark = " error: ";
  const size_t mark = message.find(kMark);
  const bool has_kind = mark != std::string::npos && mark < message.find_first_of("\n:");
  const size_t place = has_kind ? mark + kMark.size() : 0;
  if (message.compare(place, 6, "[rank ") == 0) return message;
  return cat(message.substr(0, place), "[rank ", rank, "] ", message.substr(place));
}

}  // namespace

void agree(ControlGroup& group, const std::function<void()>& work, OnStop on_stop) {
  std::string own;
  {
    const WorkScope scope(on_stop, [&group] { group.still_working(); });
    own = outcome_of([&] {
      work();
      interruption_point();
    });
  }
  const std::vector<std::string> outcomes = group.gather_from_work(own);
  size_t lowest = 0;
  while (lowest < outcomes.size() && outcomes[lowest].empty()) ++lowest;
  if (lowest == outcomes.size()) return;

  const std::string& outcome = outcomes[lowest];
  bool alike = true;
  for (const std::string& other : outcomes) alike = alike && other == outcome;
  const size_t line_end = outcome.find('\n');
  int code = static_cast<int>(ExitCode::internal);
  std::from_chars(outcome.data(), outcome.data() + line_end, code);
  const std::string message = outcome.substr(line_end + 1);
  // A stop is no rank's fault.
  const bool of_all = alike || static_cast<ExitCode>(code) == ExitCode::stopped;
  Error error(static_cast<ExitCode>(code), of_all ? message : with_rank(message, lowest));
  error.set_agreed();
  throw error;
}

}  // namespace tptrain::comm
