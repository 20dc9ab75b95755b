#include "data/sequence_source.h"

#include <algorithm>

#include "data/batch_sampler.h"

namespace tptrain::data {

SequenceSource::SequenceSource(const PreparedTokens& tokens, int64_t seq_length, Packing packing,
                               DocumentMask mask, LastWindow last_window)
    : file_(open_tokens(tokens)), seq_length_(seq_length), packing_(packing), mask_(mask) {
  switch (packing) {
    case Packing::stream:
      // The last token of a window is only a target, so the last window needs one token more than
      // its length.
      sequences_ = (file_.tokens() - 1) / seq_length;
      held_tokens_ = sequences_ * seq_length;
      if (last_window == LastWindow::padded && held_tokens_ < file_.tokens() - 1) {
        ++sequences_;
        held_tokens_ = file_.tokens();
      }
      break;
    case Packing::best_fit:
      best_fit_.emplace(file_.header().document_ends, seq_length);
      sequences_ = best_fit_->rows();
      held_tokens_ = best_fit_->tokens();
      break;
    case Packing::none:
      sequences_ = file_.header().documents();
      truncated_ = documents_longer_than(file_.header(), seq_length + 1);
      for (int64_t document = 0; document < sequences_; ++document) {
        const TokenRange range = document_range(file_.header(), document);
        held_tokens_ += std::min(seq_length, range.end - range.begin);
      }
      break;
  }
}

void SequenceSource::fill(int64_t sequence, HostBatch& batch, int64_t row) const {
  if (best_fit_) return fill_pieces(file_, best_fit_->pieces(sequence), mask_, batch, row);
  const TokenRange range = packing_ == Packing::none
                               ? document_range(file_.header(), sequence)
                               : TokenRange{sequence * seq_length_, file_.tokens()};
  fill_row(file_, range, batch, row);
  if (mask_ == DocumentMask::on) mask_documents(file_.header(), range, batch, row);
}

}  // namespace tptrain::data
