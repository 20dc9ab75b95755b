#include "data/sequential_batches.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::data {

namespace {

/// Rows that give each token of `count` but the first as a target.
int64_t windows_of(int64_t count, int64_t seq_length) {
  return (count - 1 + seq_length - 1) / seq_length;
}

}  // namespace

SequentialBatches::SequentialBatches(const PreparedTokens& tokens, const Options& options)
    : file_(open_tokens(tokens)), options_(options) {
  if (options.seq_length < 1 || options.micro_batch_size < 1 || options.dp_size < 1) {
    throw InternalError(
        problem(cat("sequential batches of seq_length ", options.seq_length, ", micro_batch_size ",
                    options.micro_batch_size, ", dp_size ", options.dp_size))
            .must("be at least 1 each"));
  }
  switch (options.packing) {
    case Packing::stream:
      windows_ = windows_of(file_.tokens(), options.seq_length);
      break;
    case Packing::best_fit:
      best_fit_.emplace(file_.header().document_ends, options.seq_length);
      windows_ = best_fit_->rows();
      break;
    case Packing::none:
      count_windows_of_documents();
      break;
  }
  if (options.max_windows == 0 || options.max_windows >= windows_) return;
  windows_ = options.max_windows;
  whole_text_ = false;
}

void SequentialBatches::count_windows_of_documents() {
  const formats::TokenFileHeader& header = file_.header();
  windows_before_.reserve(header.document_ends.size());
  for (int64_t document = 0; document < header.documents(); ++document) {
    windows_before_.push_back(windows_);
    const TokenRange range = document_range(header, document);
    windows_ += windows_of(range.end - range.begin, options_.seq_length);
  }
}

int64_t SequentialBatches::rounds() const {
  const int64_t rows = options_.micro_batch_size * options_.dp_size;
  return (windows_ + rows - 1) / rows;
}

HostBatch SequentialBatches::batch(int64_t round, int dp_rank) const {
  if (round < 0 || round >= rounds() || dp_rank < 0 || dp_rank >= options_.dp_size) {
    throw InternalError(problem(cat("batch ", round, " for dp rank ", dp_rank, " asked for"))
                            .must(cat("be of ", rounds(), " and ", options_.dp_size, " dp ranks")));
  }
  HostBatch out = padding(options_.micro_batch_size, options_.seq_length);
  out.first_sample = dp_rank * options_.micro_batch_size;
  const int64_t first = round * options_.micro_batch_size * options_.dp_size + out.first_sample;
  for (int64_t row = 0; row < out.batch; ++row) {
    if (first + row < windows_) {
      fill(first + row, out, row);
    } else if (options_.document_mask == DocumentMask::on) {
      mask_pieces({}, out, row);  // padding alone
    }
  }
  return out;
}

void SequentialBatches::fill(int64_t window, HostBatch& batch, int64_t row) const {
  const std::vector<int64_t>& ends = file_.header().document_ends;
  const int64_t length = options_.seq_length;
  if (best_fit_) {
    fill_pieces(file_, best_fit_->pieces(window), options_.document_mask, batch, row);
    return;
  }
  if (options_.packing == Packing::none) {
    // The last document that begins at or before this window (one without windows shares its number
    // with the next).
    const auto after = std::upper_bound(windows_before_.begin(), windows_before_.end(), window);
    const int64_t document = after - windows_before_.begin() - 1;
    const TokenRange range = document_range(file_.header(), document);
    const int64_t within = window - windows_before_[static_cast<size_t>(document)];
    fill_tokens({range.begin + within * length, range.end}, batch, row);
    return;
  }
  const int64_t begin = window * length;
  fill_tokens({begin, file_.tokens()}, batch, row);
  // What a document begins with does not follow from the one before.
  for (auto end = std::upper_bound(ends.begin(), ends.end(), begin);
       end != ends.end() && *end <= begin + length; ++end) {
    batch.targets[static_cast<size_t>(row * length + *end - begin - 1)] = formats::kNoLabel;
  }
}

void SequentialBatches::fill_tokens(const TokenRange& range, HostBatch& batch, int64_t row) const {
  fill_row(file_, range, batch, row);
  if (options_.document_mask == DocumentMask::on) mask_documents(file_.header(), range, batch, row);
}

}  // namespace tptrain::data
