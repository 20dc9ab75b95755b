// The elements of one JSON array, however they are spread over lines. It finds where each ends, by
// brackets and quotes; whether it is JSON, its reader says.
#pragma once

#include <string>

#include "data/file_reader.h"
#include "data/row_reader.h"

namespace tptrain::data {

class ArrayReader final : public RowReader {
 public:
  /// An element of more than max_bytes is a BadRow.
  ArrayReader(const std::filesystem::path& path, int64_t max_bytes);

  /// Throws DataError: no array, no comma between two elements, one too many, an array that is not
  /// closed, something behind it.
  std::optional<std::string_view> next() override;
  int64_t line_number() const override { return element_line_; }
  std::string sha256() override { return reader_.sha256(); }

 private:
  /// The next byte that is no white space, not taken; '\0' at the end of the file.
  char peek();
  void take();
  void read_element();
  /// Up to where the element ends or the piece does; false where it goes on.
  bool take_part();
  void keep(std::string_view part);
  [[noreturn]] void refuse(std::string received, std::string constraint, std::string fix) const;

  FileReader reader_;
  int64_t max_bytes_;
  std::string_view rest_;
  int64_t line_ = 1;
  int64_t element_line_ = 0;
  enum class State { before, between, done } state_ = State::before;
  std::string element_;
  // Within an element:
  int64_t depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
  bool too_long_ = false;
};

}  // namespace tptrain::data
