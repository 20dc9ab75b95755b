#include "metrics/jsonl_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/files.h"
#include "base/special_file.h"
#include "base/text.h"

namespace tptrain::metrics {

namespace {

using nlohmann::ordered_json;

/// "step" of one line, or nothing where the line is no object with an integer step.
std::optional<int64_t> step_of(std::string_view line) {
  const auto object = ordered_json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return std::nullopt;
  const auto step = object.find("step");
  if (step == object.end() || !step->is_number_integer()) return std::nullopt;
  return step->get<int64_t>();
}

/// `text` without the lines beyond `last_step` and without a torn last line; every kept line ends
/// with '\n'.
std::string truncated(std::string_view text, int64_t last_step, const std::filesystem::path& path) {
  std::string kept;
  int64_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t newline = text.find('\n');
    const bool last = newline == std::string_view::npos || newline + 1 == text.size();
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    const std::optional<int64_t> step = step_of(line);
    if (!step && last) break;  // torn: the process ended while it wrote
    if (!step) {
      throw DataError(
          problem(cat("\"", line.substr(0, 80), line.size() > 80 ? "..." : "", "\""))
              .at(cat(path.string(), ":", number))
              .must("be a JSON object with an integer \"step\", as every line before the last")
              .remedy("Something other than tptrain changed the file: repair or remove the line, "
                      "or move the file away to begin a new one."));
    }
    if (*step <= last_step) kept.append(line).push_back('\n');
  }
  return kept;
}

[[noreturn]] void throw_errno(const std::filesystem::path& path, std::string_view call,
                              int error = errno) {
  throw DataError(problem(cat(call, " failed: ", std::strerror(error)))
                      .at(path.string())
                      .remedy(error == ENOSPC || error == EDQUOT
                                  ? "Free space on this file system."
                                  : "Check that run_dir exists and may be written to."));
}

}  // namespace

struct JsonlWriter::Impl {
  std::filesystem::path path;
  int descriptor = -1;
  std::optional<off_t> whole_until = {};  // beyond it stands a part of a line

  ~Impl() {
    if (descriptor >= 0) ::close(descriptor);
  }

  // One write(2) a line on a file opened for appending: a reader that follows the file sees whole
  // lines. What a full disk left of a line goes first: the lines after it would be unreadable.
  void line(const ordered_json& object) {
    if (whole_until && ::ftruncate(descriptor, *whole_until) != 0) throw_errno(path, "ftruncate");
    whole_until.reset();
    const off_t end = ::lseek(descriptor, 0, SEEK_END);  // -1 where it is no regular file
    const std::string text = object.dump() + "\n";
    size_t done = 0;
    while (done < text.size()) {
      const ssize_t count = ::write(descriptor, text.data() + done, text.size() - done);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) {
        const int error = errno;
        if (end >= 0 && done > 0 && ::ftruncate(descriptor, end) != 0) whole_until = end;
        throw_errno(path, "write", error);
      }
      done += static_cast<size_t>(count);
    }
  }
};

JsonlWriter::JsonlWriter(const std::filesystem::path& path, int64_t last_step)
    : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  refuse_special_file(path);
  if (std::filesystem::is_regular_file(path)) {
    const std::string before = read_file(path);
    const std::string after = truncated(before, last_step, path);
    if (after != before) write_file_atomically(path, after, FailAs::data_error);
  }
  impl_->descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (impl_->descriptor < 0) throw_errno(path, "open");
}

JsonlWriter::~JsonlWriter() = default;

std::string JsonlWriter::name() const { return impl_->path.string(); }

// The library writes a double with as many digits as bring back the same bits; nan and inf, which
// JSON lacks, become null.
void JsonlWriter::step(const StepMetrics& metrics) {
  ordered_json object = {
      {"step", metrics.step},
      {"loss", metrics.loss},
      {"grad_norm", metrics.grad_norm},
      {"lr", metrics.lr},
      {"tokens_seen", metrics.tokens_seen},
      {"epoch", metrics.epoch},
      {"time", metrics.time},
      {"step_time_s", metrics.step_time_s},
      {"tokens_per_second", metrics.tokens_per_second},
      {"tokens_per_second_per_rank", metrics.tokens_per_second_per_rank},
      {"tflops", metrics.tflops},
  };
  if (metrics.mfu) object["mfu"] = *metrics.mfu;
  object["peak_memory_bytes"] = metrics.peak_memory_bytes;
  impl_->line(object);
}

void JsonlWriter::skipped(const SkippedStep& step) {
  impl_->line({{"step", step.step},
               {"skipped", step.reason},
               {"lr", step.lr},
               {"tokens_seen", step.tokens_seen},
               {"epoch", step.epoch},
               {"time", step.time}});
}

void JsonlWriter::eval(const EvalMetrics& metrics) {
  impl_->line({{"step", metrics.step},
               {"eval_loss", metrics.loss},
               {"eval_perplexity", metrics.perplexity()},
               {"eval_tokens", metrics.target_tokens},
               {"time", metrics.time}});
}

}  // namespace tptrain::metrics
