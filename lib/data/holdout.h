// Documents that a training leaves out for its evaluation: by a hash of what each holds, so that
// documents of the same text go together, whatever file they stand in and however many others
// there are.
#pragma once

#include <string>
#include <string_view>

#include "data/jsonl_rows.h"

namespace tptrain::data {

struct Holdout {
  enum class Part { trained, held_out };
  double share = 0;  // of the documents that are held out; 0: none, and all are taken
  Part part = Part::trained;

  bool any() const { return share > 0; }
  /// Whether a document belongs to this part.
  bool takes(std::string_view content) const;
  bool takes(const JsonlRow& row) const { return !any() || takes(content_of(row)); }

  /// What the row says, without what else its line holds.
  static std::string content_of(const JsonlRow& row);
};

}  // namespace tptrain::data
