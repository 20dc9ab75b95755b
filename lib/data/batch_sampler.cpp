#include "data/batch_sampler.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "data/mixture.h"
#include "data/permutation.h"
#include "data/sequence_source.h"

namespace tptrain::data {

struct BatchSampler::Impl {
  std::vector<SequenceSource> sources;
  std::vector<std::string> names;
  std::vector<int64_t> repeats;
  std::optional<MixtureSchedule> schedule;  // where there are weights
  BatchShape shape;
  SamplerOptions options;
  int64_t windows = 0;  // of an epoch

  struct Place {
    size_t source;
    int64_t sequence;
  };
  Place place(int64_t index) const;
  int64_t shuffled(int64_t index, int64_t size, uint64_t key) const;
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

const char* remedy_of(const std::string& split, const char* usual) {
  return split == "eval_share" ? "Raise it, or name files to evaluate on: data.eval." : usual;
}

void check_enough(const std::vector<SourceTokens>& sources, const BatchShape& shape,
                  const SamplerOptions& options, int64_t windows) {
  const Packing packing = options.packing;
  const int64_t global_batch = shape.global_batch_size();
  if (windows >= (options.whole_batches ? global_batch : 1)) return;
  PreparedTokens tokens;  // of all
  tokens.split = sources.front().tokens.split;
  for (const SourceTokens& source : sources) {
    tokens.tokens += source.tokens.tokens;
    tokens.documents += source.tokens.documents;
  }
  const std::string needed =
      packing == Packing::none ? cat(with_thousands(global_batch), " documents, one a sequence")
      : packing == Packing::best_fit
          ? cat("documents that fill ", with_thousands(global_batch), " sequences")
          : cat(with_thousands(global_batch * shape.seq_length + 1), " tokens");
  throw DataError(
      problem(cat("the text has ", with_thousands(tokens.tokens), " tokens in ", tokens.documents,
                  " document(s), enough for ", windows, " sequence(s) of ", shape.seq_length,
                  " tokens; one global batch is ", global_batch, " (", shape.micro_batch_size,
                  " a micro-batch x ", shape.accumulation, " micro-batches x dp ", shape.dp_size,
                  ")"))
          .at("data." + tokens.split)
          .must(cat("have at least ", needed))
          .remedy(remedy_of(tokens.split, packing == Packing::none
                                              ? "Add documents, lower train.global_batch_size, or "
                                                "set data.packing: stream."
                                              : "Add text, or lower train.seq_length or "
                                                "train.global_batch_size.")));
}

}  // namespace

int64_t BatchSampler::Impl::shuffled(int64_t index, int64_t size, uint64_t key) const {
  const int64_t within = index % size;
  if (!options.shuffle) return within;
  return Permutation(size, options.seed + key, static_cast<uint64_t>(index / size))(within);
}

BatchSampler::Impl::Place BatchSampler::Impl::place(int64_t index) const {
  if (schedule) {
    const MixtureSchedule::Turn turn = (*schedule)(index);
    const auto source = static_cast<size_t>(turn.source);
    // Sources of one size must not be visited in one order.
    const uint64_t key = source == 0 ? 0 : mix64(source);
    return {source, shuffled(turn.ordinal, sources[source].sequences(), key)};
  }
  int64_t within = shuffled(index, windows, 0);
  for (size_t source = 0;; ++source) {
    const int64_t sequences = sources[source].sequences();
    if (within < sequences * repeats[source]) return {source, within % sequences};
    within -= sequences * repeats[source];
  }
}

std::string identity_of(const std::vector<SourceTokens>& sources) {
  if (sources.size() == 1 && sources.front().repeat == 1) return sources.front().tokens.identity;
  Sha256 hash;
  hash.update("tptrain mixture 1\n");
  for (const SourceTokens& source : sources) {
    hash.update(cat(source.tokens.identity, " weight ", fixed(source.weight.value_or(0), 12),
                    " repeat ", source.repeat, "\n"));
  }
  return hash.hex();
}

BatchSampler::BatchSampler(const PreparedTokens& tokens, const BatchShape& shape,
                           const SamplerOptions& options)
    : BatchSampler(std::vector<SourceTokens>{{.tokens = tokens}}, shape, options) {}

BatchSampler::BatchSampler(const std::vector<SourceTokens>& sources, const BatchShape& shape,
                           const SamplerOptions& options) {
  check(shape);
  impl_ = std::make_unique<Impl>();
  impl_->shape = shape;
  impl_->options = options;
  std::vector<double> weights;
  for (const SourceTokens& source : sources) {
    impl_->sources.emplace_back(source.tokens, shape.seq_length, options.packing,
                                options.document_mask, options.last_window);
    const int64_t sequences = impl_->sources.back().sequences();
    if (sequences < 1 && sources.size() > 1) {
      throw DataError(
          problem(cat("the source ", source.name, " has ", source.tokens.tokens,
                      " tokens, not enough for one sequence"))
              .at("data." + source.tokens.split)
              .must(cat("give at least one of ", shape.seq_length, " tokens"))
              .remedy(remedy_of(source.tokens.split,
                                "Leave it out, or name it together with another in one glob.")));
    }
    impl_->names.push_back(source.name);
    impl_->repeats.push_back(source.repeat);
    impl_->windows += sequences * source.repeat;
    if (source.weight) weights.push_back(*source.weight);
  }
  check_enough(sources, shape, options, impl_->windows);
  if (!weights.empty()) impl_->schedule.emplace(weights);
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
    const Impl::Place place = impl_->place(first + b);
    impl_->sources[place.source].fill(place.sequence, out, b);
  }
  return out;
}

int64_t BatchSampler::windows() const { return impl_->windows; }
int64_t BatchSampler::truncated() const {
  int64_t truncated = 0;
  for (const SequenceSource& source : impl_->sources) truncated += source.truncated();
  return truncated;
}

double BatchSampler::padding() const {
  int64_t held = 0;
  for (size_t i = 0; i < impl_->sources.size(); ++i) {
    held += impl_->sources[i].held_tokens() * impl_->repeats[i];
  }
  const auto positions = static_cast<double>(impl_->windows * impl_->shape.seq_length);
  return 1.0 - static_cast<double>(held) / positions;
}

std::vector<BatchSampler::SourceProgress> BatchSampler::progress(int64_t sequences) const {
  std::vector<SourceProgress> all;
  if (!impl_->schedule || impl_->sources.size() < 2) return all;
  const std::vector<int64_t> counts = impl_->schedule->counts(sequences);
  for (size_t i = 0; i < counts.size(); ++i) {
    all.push_back({.name = impl_->names[i],
                   .sequences = counts[i],
                   .epoch = static_cast<double>(counts[i]) /
                            static_cast<double>(impl_->sources[i].sequences())});
  }
  return all;
}

const BatchShape& BatchSampler::shape() const { return impl_->shape; }

}  // namespace tptrain::data
