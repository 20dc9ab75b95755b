// gzip and zstd streams -> what they hold, piece by piece. Knows no files, and trusts nothing in a
// stream.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tptrain::data {

/// What is wrong with a stream: "is damaged (incorrect data check)".
struct StreamError {
  std::string what;
};

/// A file may hold several streams one behind the other, which unpack to what they hold end to end.
class Decompressor {
 public:
  virtual ~Decompressor() = default;
  /// "gzip", "zstd"
  virtual std::string_view name() const = 0;

  struct Step {
    size_t taken = 0;
    size_t given = 0;
  };
  /// Takes from `packed` and fills `out`; neither need be used up. Without anything packed it gives
  /// what it still holds. Throws StreamError.
  virtual Step run(std::string_view packed, std::span<char> out) = 0;
  /// Whether what was taken ends with a stream's end.
  virtual bool complete() const = 0;
};

/// By the first bytes of a file; null where they are of neither.
std::unique_ptr<Decompressor> decompressor_for(std::string_view head);

}  // namespace tptrain::data
