#include "data/batch_sampler.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "data/best_fit.h"
#include "data/permutation.h"
#include "formats/token_file.h"

namespace tptrain::data {

struct BatchSampler::Impl {
  formats::TokenFile file;
  BatchShape shape;
  SamplerOptions options;
  std::optional<BestFitRows> best_fit = {};  // where the packing is that
  int64_t windows = 0;                       // of an epoch
  int64_t held_tokens = 0;                   // in their positions
  int64_t truncated = 0;

  void count();
  void fill(int64_t window, HostBatch& batch, int64_t row) const;
};

namespace {

void check(const BatchShape& shape) {
  if (shape.seq_length < 1 || shape.micro_batch_size < 1 || shape.accumulation < 1 ||
      shape.dp_size < 1) {
    throw InternalError(
        problem(cat("batch shape: seq_length ", shape.seq_length, ", micro_batch_size ",
                    shape.micro_batch_size, ", accumulation ", shape.accumulation, ", dp_size ",
                    shape.dp_size))
            .must("be at least 1 each"));
  }
}

void check_enough(const PreparedTokens& tokens, const BatchShape& shape, Packing packing,
                  int64_t windows) {
  const int64_t global_batch = shape.global_batch_size();
  if (windows >= global_batch) return;
  const std::string needed =
      packing == Packing::none ? cat(with_thousands(global_batch), " documents, one a sequence")
      : packing == Packing::best_fit
          ? cat("documents that fill ", with_thousands(global_batch), " sequences")
          : cat(with_thousands(global_batch * shape.seq_length + 1), " tokens");
  throw DataError(problem(cat("the text has ", with_thousands(tokens.tokens), " tokens in ",
                              tokens.documents, " document(s), enough for ", windows,
                              " sequence(s) of ", shape.seq_length, " tokens; one global batch is ",
                              global_batch, " (", shape.micro_batch_size, " a micro-batch x ",
                              shape.accumulation, " micro-batches x dp ", shape.dp_size, ")"))
                      .at("data." + tokens.split)
                      .must(cat("have at least ", needed))
                      .remedy(packing == Packing::none
                                  ? "Add documents, lower train.global_batch_size, or set "
                                    "data.packing: stream."
                                  : "Add text, or lower train.seq_length or "
                                    "train.global_batch_size."));
}

}  // namespace

void BatchSampler::Impl::count() {
  const int64_t length = shape.seq_length;
  switch (options.packing) {
    case Packing::stream:
      // The last token of a window is only a target, so the last window needs one token more than
      // its length.
      windows = (file.tokens() - 1) / length;
      held_tokens = windows * length;
      break;
    case Packing::best_fit:
      best_fit.emplace(file.header().document_ends, length);
      windows = best_fit->rows();
      held_tokens = best_fit->tokens();
      break;
    case Packing::none:
      windows = file.header().documents();
      truncated = documents_longer_than(file.header(), length + 1);
      for (int64_t document = 0; document < windows; ++document) {
        const TokenRange range = document_range(file.header(), document);
        held_tokens += std::min(length, range.end - range.begin);
      }
      break;
  }
}

void BatchSampler::Impl::fill(int64_t window, HostBatch& batch, int64_t row) const {
  const bool masks = options.document_mask == DocumentMask::on;
  if (best_fit) {
    int64_t at = 0;
    for (const Piece& piece : best_fit->pieces(window)) {
      fill_piece(file, piece, batch, row, at);
      at += piece.tokens;
    }
    if (masks) mask_pieces(best_fit->pieces(window), batch, row);
    return;
  }
  const TokenRange range = options.packing == Packing::none
                               ? document_range(file.header(), window)
                               : TokenRange{window * shape.seq_length, file.tokens()};
  fill_row(file, range, batch, row);
  if (masks) mask_documents(file.header(), range, batch, row);
}

BatchSampler::BatchSampler(const PreparedTokens& tokens, const BatchShape& shape,
                           const SamplerOptions& options) {
  check(shape);
  impl_ =
      std::make_unique<Impl>(Impl{.file = open_tokens(tokens), .shape = shape, .options = options});
  impl_->count();
  check_enough(tokens, shape, options.packing, impl_->windows);
}

BatchSampler::~BatchSampler() = default;
BatchSampler::BatchSampler(BatchSampler&&) noexcept = default;

HostBatch BatchSampler::micro_batch(int64_t step, int dp_rank, int64_t micro) const {
  const BatchShape& shape = impl_->shape;
  if (step < 0 || dp_rank < 0 || dp_rank >= shape.dp_size || micro < 0 ||
      micro >= shape.accumulation) {
    throw InternalError(problem(cat("micro-batch ", micro, " of step ", step, " for dp rank ",
                                    dp_rank, " asked for"))
                            .must(cat("be of ", shape.accumulation, " micro-batches and ",
                                      shape.dp_size, " dp ranks")));
  }
  HostBatch out = data::padding(shape.micro_batch_size, shape.seq_length);
  out.step = step;
  out.first_sample = (micro * shape.dp_size + dp_rank) * shape.micro_batch_size;
  const int64_t first = step * shape.global_batch_size() + out.first_sample;
  for (int64_t b = 0; b < out.batch; ++b) {
    const int64_t epoch = (first + b) / impl_->windows;
    int64_t window = (first + b) % impl_->windows;
    if (impl_->options.shuffle) {
      window =
          Permutation(impl_->windows, impl_->options.seed, static_cast<uint64_t>(epoch))(window);
    }
    impl_->fill(window, out, b);
  }
  return out;
}

int64_t BatchSampler::windows() const { return impl_->windows; }
int64_t BatchSampler::truncated() const { return impl_->truncated; }
double BatchSampler::padding() const {
  const auto positions = static_cast<double>(impl_->windows * impl_->shape.seq_length);
  return 1.0 - static_cast<double>(impl_->held_tokens) / positions;
}
int64_t BatchSampler::steps_per_epoch() const {
  return impl_->windows / impl_->shape.global_batch_size();
}
const BatchShape& BatchSampler::shape() const { return impl_->shape; }

}  // namespace tptrain::data
