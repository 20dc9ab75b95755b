// Every function here has the name of the one it mirrors.
#include "planner/activations.h"

#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include "comm/peer_exchange.h"
#include "kernels/cpu/loops.h"
#include "model/head_share.h"
#include "model/loss_head.h"
#include "planner/timeline.h"
#include "tensor_parallel/partition.h"

namespace tptrain::planner {

namespace {

using model::Recompute;

constexpr int64_t kFp32 = 4;
constexpr int64_t kInt64 = 8;
constexpr int64_t kTokensOfDocument = 128;  // on average, where they are masked: an assumption

bool pushes_over_tp(const ActivationOptions& o) {
  return o.device == Device::cuda && o.tp_size > 1 && o.copies.tp == comm::PeerCopies::automatic;
}
bool pushes_over_dp(const ActivationOptions& o) {
  return o.device == Device::cuda && o.dp_size > 1 && o.copies.dp == comm::PeerCopies::automatic;
}

/// Elements of the tensors of one rank; a token stands for a position of one sequence.
struct Sizes {
  Sizes(const model::DecoderConfig& config, const ActivationOptions& o)
      : element(o.bf16 ? 2 : 4),
        on_gpu(o.device == Device::cuda),
        masked(o.document_mask),
        longest(o.seq_length),
        positions(masked ? o.seq_length * o.micro_batch_size : o.seq_length),
        batch(masked ? 1 : o.micro_batch_size),
        tokens(positions * batch),
        sliced(o.training.sequence_parallel == tensor_parallel::SequenceParallel::on &&
               o.tp_size > 1),
        slice_tokens(sliced ? (positions + o.tp_size - 1) / o.tp_size * batch : tokens),
        padded_tokens(sliced ? slice_tokens * o.tp_size : tokens),
        hidden(config.hidden_size),
        head_dim(config.head_dim),
        learned_positions(config.positions == model::Positions::learned),
        statistics(config.norm == model::Norm::layer ? 2 : 1),
        ffn(tensor_parallel::share_of(config.intermediate_size, o.tp_rank, o.tp_size).size()),
        vocab(tensor_parallel::share_of(config.vocab_size, o.tp_rank, o.tp_size).size()),
        cut_vocab(o.tp_size > 1) {
    const model::HeadShare share = model::head_share(config, o.tp_rank, o.tp_size);
    heads = share.heads.size();
    kv_heads = share.kv_heads.size();
    qkv = (heads + 2 * kv_heads) * head_dim;
    unnormed = config.qk_norm ? (heads + kv_heads) * head_dim : 0;
    up = config.feed_forward == model::FeedForward::swiglu ? 2 * ffn : ffn;
    context = heads * head_dim;
  }

  int64_t element;  // bytes of the compute dtype
  bool on_gpu;
  bool masked;
  int64_t longest;  // that attention looks at, at most
  int64_t positions, batch, tokens;
  bool sliced;
  int64_t slice_tokens;   // outside a region
  int64_t padded_tokens;  // of a gathered tensor
  int64_t hidden, head_dim;
  bool learned_positions;
  int64_t statistics;  // of a token's norm
  int64_t ffn, vocab;
  bool cut_vocab;
  int64_t heads = 0, kv_heads = 0;
  int64_t qkv = 0, unnormed = 0, context = 0, up = 0;  // columns
};

struct Stream {
  Buffer residual, delta;
};
struct Norm {
  Buffer sum, output, statistics;
};
struct Attended {
  Buffer context, logsumexp;
};
struct Qkv {
  Buffer packed, unnormed;
};
/// An operand in FP8, one byte an element.
struct Cast {
  Buffer rows, columns;
};
struct Kept {
  bool fp8 = false;                                  // the layer's linears
  Buffer attention_cast, mlp_cast, activation_cast;  // columns
  Stream input;
  Buffer attention_sum, attention_statistics, attention_input;
  Qkv qkv;
  Attended attention;
  Buffer mlp_sum, mlp_statistics, mlp_input, up, activation;
};
struct HeadInput {
  Buffer sum, statistics, input;
};

class Run {
 public:
  Run(const model::DecoderConfig& config, const ActivationOptions& options)
      : config_(config), options_(options), s_(config, options) {}

  int64_t forward_backward() {
    // Ids and targets; of documents, their positions (their ends are too few to count).
    const Buffer batch = t_.make((s_.masked ? 3 : 2) * s_.tokens * kInt64);
    const Buffer rotary = t_.make(rotary_bytes(s_.longest));
    const Buffer of_documents = t_.make(s_.masked ? rotary_bytes(s_.tokens) : 0);
    const auto layers = static_cast<size_t>(config_.num_hidden_layers);
    Buffer for_logits = memory_for_logits();
    Stream stream = {.residual = embed(), .delta = {}};
    const auto frozen = std::min<size_t>(layers, std::max(0, options_.first_training_block - 1));
    std::vector<Kept> kept(layers);
    for (size_t i = 0; i < layers; ++i) {
      kept[i].fp8 = options_.training.fp8.takes(static_cast<int64_t>(i), config_.num_hidden_layers);
      stream = forward(std::move(stream), kept[i]);
      if (i < frozen) kept[i] = {};
    }
    HeadInput head = head_input(std::exchange(stream, {}));
    Buffer grad = head_backward(std::exchange(head, {}), std::move(for_logits));
    for (size_t i = layers; i-- > frozen;)
      grad = backward(std::move(grad), std::exchange(kept[i], {}));
    if (options_.first_training_block == 0) embedding_backward(grad);
    return t_.peak();
  }

 private:
  int64_t rotary_bytes(int64_t rows) const {
    return s_.learned_positions ? 0 : rows * s_.head_dim * kFp32;
  }

  // --- sequence_region.cpp
  Buffer slice() { return t_.make(s_.slice_tokens * s_.hidden * s_.element); }
  Buffer columns(int64_t width) { return t_.make(s_.tokens * width * s_.element); }
  /// Between GPUs that push, into the push buffers.
  Buffer start_gather(const Buffer& outside) {
    if (s_.sliced && pushes_over_tp(options_)) return t_.make(0);
    return gather(outside);
  }
  Buffer gather(const Buffer& outside) {
    return s_.sliced ? t_.make(s_.padded_tokens * s_.hidden * s_.element) : outside;
  }
  Buffer reduce(Buffer partial) {
    if (!s_.sliced) return partial;
    if (s_.padded_tokens != s_.tokens) partial = t_.make(s_.padded_tokens * s_.hidden * s_.element);
    return slice();
  }
  /// A sum under way: its terms, until it is finished, and its result.
  struct Reducing {
    Buffer terms, result;
  };
  Reducing start_reduce() {
    if (!s_.sliced) return {.terms = {}, .result = columns(s_.hidden)};
    Buffer terms = t_.make(s_.padded_tokens * s_.hidden * s_.element);
    return {.terms = std::move(terms), .result = slice()};
  }

  // --- kernels/gemm.cpp: on the CPU bf16 is widened; the bias's sum reads a widened copy too
  void accumulate_weight_gradient(bool fp8, int64_t out, int64_t in) {
    if (fp8) return fp8_product(out, in, s_.tokens);
    if (options_.bf16 && !s_.on_gpu) t_.touch(s_.tokens * out * kFp32, s_.tokens * in * kFp32);
  }

  // --- kernels/fp8.cpp: on the CPU operands are widened, and the product is fp32
  void fp8_product(int64_t m, int64_t n, int64_t k) {
    if (!s_.on_gpu) t_.touch((m * k + n * k + m * n) * kFp32);
  }
  // --- tensor_parallel/fp8_linear.cpp
  bool keeps_columns() const {
    return options_.training.recompute == Recompute::none && !s_.sliced;
  }
  /// Columns, as long as a multiple of 16 tokens.
  Buffer byte_matrix(bool made, int64_t width) {
    return t_.make(made ? (s_.tokens + 15) / 16 * 16 * width : 0);
  }
  Cast cast(bool fp8, int64_t width, bool rows, bool columns) {
    Cast result;
    if (fp8 && rows) result.rows = byte_matrix(true, width);
    if (fp8 && columns) result.columns = byte_matrix(true, width);
    return result;
  }
  /// Of a forward's input: what backward gets of it, behind the product's output.
  Buffer cast_for_backward(Cast cast, Buffer& input) {
    if (cast.columns) input.reset();
    return std::move(cast.columns);
  }

  // --- model/norm.cpp
  Norm norm(const Stream& stream) {
    Norm result;
    result.sum = stream.delta ? slice() : stream.residual;
    result.output = slice();
    result.statistics = t_.make(s_.statistics * s_.slice_tokens * kFp32);
    return result;
  }
  Buffer dropout_backward(const Buffer& grad) {
    return options_.training.residual_dropout > 0 ? slice() : grad;
  }

  // --- model/attention.cpp
  Qkv qkv() {
    Qkv result;
    result.packed = columns(s_.qkv);
    if (s_.unnormed > 0) result.unnormed = columns(s_.unnormed);
    return result;
  }

  // --- kernels/attention.cpp, attention_dropout.cpp
  int64_t scratch_bytes(bool backward) const {
    kernels::cpu::Attention args;
    args.positions = s_.longest;
    args.batch = s_.batch;
    args.heads = s_.heads;
    args.kv_heads = s_.kv_heads;
    args.head_dim = s_.head_dim;
    const int64_t pieces =
        std::min(options_.cpu_threads, s_.tokens / s_.longest * s_.kv_heads);  // at least
    return pieces * kFp32 *
           (backward ? kernels::cpu::attention_backward_scratch(args)
                     : kernels::cpu::attention_scratch(args));
  }
  /// [S, S] of the heads that are worked on together, fp32, and [S, D] of one of them.
  struct DropoutSizes {
    int64_t future, matrix, rows, one_head;
  };
  DropoutSizes dropout_sizes() const {
    constexpr int64_t kProbabilities = int64_t{1} << 22;
    const int64_t square = s_.positions * s_.positions;
    const int64_t together =
        std::clamp<int64_t>(kProbabilities / square, 1, s_.heads / s_.kv_heads);
    const int64_t one_head = s_.positions * s_.head_dim * kFp32;
    return {.future = square,
            .matrix = together * square * kFp32,
            .rows = together * one_head,
            .one_head = one_head};
  }
  int64_t widened(int64_t width) const { return options_.bf16 ? s_.tokens * width * kFp32 : 0; }
  Attended attend() {
    if (options_.training.attention_dropout > 0) {
      const DropoutSizes d = dropout_sizes();
      Buffer context = columns(s_.context);
      const int64_t kv = options_.bf16 ? 2 * d.one_head : 0;
      t_.touch(d.future, kv, d.rows, 2 * d.matrix);
      return {.context = std::move(context), .logsumexp = {}};
    }
    if (s_.on_gpu) {
      Buffer context = columns(s_.context);
      return {.context = std::move(context), .logsumexp = t_.make(logsumexp_bytes())};
    }
    const Buffer wide = t_.make(widened(s_.qkv));
    Buffer context = t_.make(s_.tokens * s_.context * kFp32);
    Buffer logsumexp = t_.make(s_.tokens * s_.heads * kFp32);
    t_.touch(scratch_bytes(/*backward=*/false));
    if (options_.bf16) context = columns(s_.context);
    return {.context = std::move(context), .logsumexp = std::move(logsumexp)};
  }
  /// On GPUs. Of masked documents in fp32 memory-efficient attention keeps as many rows for each
  /// document as the longest might have, and there is room for a power of two of them.
  int64_t logsumexp_bytes() const {
    if (!s_.masked || options_.bf16) return s_.tokens * s_.heads * kFp32;
    const auto entries = std::bit_ceil(static_cast<uint64_t>(s_.tokens / kTokensOfDocument + 1));
    const int64_t rows = (s_.longest + 31) / 32 * 32;
    return static_cast<int64_t>(entries - 1) * s_.heads * rows * kFp32;
  }
  Buffer attend_backward() {
    if (options_.training.attention_dropout > 0) {
      const DropoutSizes d = dropout_sizes();
      Buffer grad_qkv = columns(s_.qkv);
      const int64_t kv = options_.bf16 ? 2 * d.one_head : 0;
      t_.touch(d.future, kv, 2 * d.one_head, 3 * d.rows, 4 * d.matrix);
      return grad_qkv;
    }
    if (s_.on_gpu) {
      // The gradients of q, k and v apart; cuDNN's and FlashAttention's workspace: that of q in
      // fp32, and a number a row.
      const Buffer apart = columns(s_.qkv);
      // FlashAttention-2 takes 128 rows more for each document.
      const int64_t rows = s_.masked ? s_.tokens + s_.tokens / kTokensOfDocument * 128 : s_.tokens;
      t_.touch(rows * (s_.context + s_.heads) * kFp32);
      return columns(s_.qkv);
    }
    const Buffer wide = t_.make(widened(s_.qkv) + 2 * widened(s_.context));
    Buffer grad_qkv = t_.make(s_.tokens * s_.qkv * kFp32);
    t_.touch(scratch_bytes(/*backward=*/true));
    if (options_.bf16) grad_qkv = columns(s_.qkv);
    return grad_qkv;
  }

  // --- model/decoder_layer.cpp
  Kept activations(Stream stream, bool fp8) {
    Kept kept;
    kept.fp8 = fp8;
    Norm normed = norm(stream);
    stream = {};
    kept.attention_sum = std::move(normed.sum);
    kept.attention_statistics = std::move(normed.statistics);
    kept.attention_input = std::move(normed.output);
    {
      Buffer whole = start_gather(kept.attention_input);
      Cast input = cast(fp8, s_.hidden, true, keeps_columns());
      kept.qkv = qkv();
      if (fp8) fp8_product(s_.tokens, s_.qkv, s_.hidden);
      whole.reset();
      kept.attention_cast = cast_for_backward(std::move(input), kept.attention_input);
    }
    kept.attention = attend();
    Buffer attended;
    {
      const Cast context = cast(fp8, s_.context, true, false);
      attended = start_reduce().result;
      if (fp8) fp8_product(s_.tokens, s_.hidden, s_.context);
    }

    normed = norm({.residual = kept.attention_sum, .delta = attended});
    kept.mlp_sum = std::move(normed.sum);
    kept.mlp_statistics = std::move(normed.statistics);
    kept.mlp_input = std::move(normed.output);
    {
      Buffer whole = start_gather(kept.mlp_input);
      Cast input = cast(fp8, s_.hidden, true, keeps_columns());
      kept.up = columns(s_.up);
      if (fp8) fp8_product(s_.tokens, s_.up, s_.hidden);
      whole.reset();
      kept.mlp_cast = cast_for_backward(std::move(input), kept.mlp_input);
    }
    kept.activation = columns(s_.ffn);
    return kept;
  }
  Stream forward(Stream stream, Kept& kept) {
    const Recompute recompute = options_.training.recompute;
    const Stream input = recompute == Recompute::full ? stream : Stream{};
    Kept all = activations(std::move(stream), kept.fp8);
    Cast activation = cast(kept.fp8, s_.ffn, true, keeps_columns());
    Buffer fed_forward = start_reduce().result;
    if (kept.fp8) fp8_product(s_.tokens, s_.hidden, s_.ffn);
    all.activation_cast = cast_for_backward(std::move(activation), all.activation);
    Stream output = {.residual = all.mlp_sum, .delta = std::move(fed_forward)};
    switch (recompute) {
      case Recompute::none:
        break;
      case Recompute::selective:
        for (Buffer* again : {&all.attention_input, &all.mlp_input, &all.activation})
          again->reset();
        break;
      case Recompute::full:
        all = {};
        all.input = input;
        break;
    }
    all.fp8 = kept.fp8;
    kept = std::move(all);
    return output;
  }
  Buffer backward(Buffer grad, Kept kept) {
    if (kept.input.residual) {
      Stream input = std::exchange(kept.input, {});
      kept = activations(std::move(input), kept.fp8);
    }
    grad = mlp_backward(grad, kept);
    return attention_backward(grad, kept);
  }
  Buffer mlp_backward(const Buffer& grad, Kept& kept) {
    const Buffer grad_sum = dropout_backward(grad);
    Buffer grad_output = start_gather(grad_sum);
    Buffer being_gathered, input;
    if (!kept.mlp_cast) {
      if (!kept.mlp_input) kept.mlp_input = slice();
      being_gathered = std::exchange(kept.mlp_input, {});
      input = start_gather(being_gathered);
    }
    if (!kept.activation && !kept.activation_cast) kept.activation = columns(s_.ffn);
    Cast grad_cast = cast(kept.fp8, s_.hidden, true, true);
    Buffer grad_up;
    {
      // GELU's derivative works in the memory of the gradient behind it.
      const bool in_place = s_.up == s_.ffn && !kept.fp8;
      const Buffer grad_activation = in_place ? Buffer{} : columns(s_.ffn);
      if (kept.fp8) fp8_product(s_.tokens, s_.ffn, s_.hidden);
      grad_cast.rows.reset();
      grad_up = columns(s_.up);
    }
    kept.up.reset();
    Cast grad_up_cast = cast(kept.fp8, s_.up, true, true);
    Reducing grad_input = start_reduce();
    if (kept.fp8) fp8_product(s_.tokens, s_.hidden, s_.up);
    grad_up_cast.rows.reset();
    if (!kept.activation_cast) kept.activation_cast = byte_matrix(kept.fp8, s_.ffn);
    accumulate_weight_gradient(kept.fp8, s_.hidden, s_.ffn);
    kept.activation.reset();
    kept.activation_cast.reset();
    grad_cast = {};
    grad_output.reset();
    being_gathered.reset();
    if (!kept.mlp_cast) kept.mlp_cast = byte_matrix(kept.fp8, s_.hidden);
    accumulate_weight_gradient(kept.fp8, s_.up, s_.hidden);
    kept.mlp_cast.reset();
    grad_up_cast = {};
    grad_up.reset();
    input.reset();
    grad_input.terms.reset();
    Buffer result = slice();
    kept.mlp_sum.reset();
    return result;
  }
  Buffer attention_backward(const Buffer& grad, Kept& kept) {
    const Buffer grad_sum = dropout_backward(grad);
    Buffer grad_output = start_gather(grad_sum);
    Buffer being_gathered, input;
    if (!kept.attention_cast) {
      if (!kept.attention_input) kept.attention_input = slice();
      being_gathered = std::exchange(kept.attention_input, {});
      input = start_gather(being_gathered);
    }
    Cast grad_cast = cast(kept.fp8, s_.hidden, true, true);
    Buffer grad_context = columns(s_.context);
    if (kept.fp8) fp8_product(s_.tokens, s_.context, s_.hidden);
    grad_cast.rows.reset();
    {
      const Cast context = cast(kept.fp8, s_.context, false, true);
      accumulate_weight_gradient(kept.fp8, s_.hidden, s_.context);
    }
    grad_cast = {};
    grad_output.reset();
    Buffer grad_qkv = attend_backward();
    kept.qkv = {};
    kept.attention = {};
    grad_context.reset();
    Cast grad_qkv_cast = cast(kept.fp8, s_.qkv, true, true);
    Reducing grad_input = start_reduce();
    if (kept.fp8) fp8_product(s_.tokens, s_.hidden, s_.qkv);
    grad_qkv_cast.rows.reset();
    being_gathered.reset();
    if (!kept.attention_cast) kept.attention_cast = byte_matrix(kept.fp8, s_.hidden);
    accumulate_weight_gradient(kept.fp8, s_.qkv, s_.hidden);
    kept.attention_cast.reset();
    grad_qkv_cast = {};
    grad_qkv.reset();
    input.reset();
    grad_input.terms.reset();
    Buffer result = slice();
    kept.attention_sum.reset();
    return result;
  }

  // --- model/decoder.cpp and tensor_parallel/vocab_parallel.cpp
  /// Local rows of the ids, int64, and which lie elsewhere.
  Buffer local_ids() { return t_.make(s_.cut_vocab && !s_.on_gpu ? s_.tokens * (kInt64 + 1) : 0); }
  Buffer embed() {
    const Buffer ids = local_ids();
    const Buffer output = columns(s_.hidden);
    Buffer outside = reduce(output);
    if (s_.learned_positions && s_.masked) slice();  // rows of the table, looked up
    return outside;
  }
  void embedding_backward(const Buffer& outside) {
    if (s_.learned_positions && s_.masked) {
      t_.touch(options_.bf16 && !s_.on_gpu ? s_.slice_tokens * s_.hidden * kFp32 : 0);
    } else if (s_.learned_positions) {  // the sum over the sequences of a position, bf16 widened
                                        // before
      const int64_t wide = options_.bf16 ? s_.slice_tokens * s_.hidden * kFp32 : 0;
      t_.touch(wide, s_.slice_tokens / s_.batch * s_.hidden * kFp32);
    }
    if (s_.on_gpu) {
      const Buffer whole = gather(outside);
      t_.touch(s_.tokens * (2 * 4 + 2 * kInt64));  // ids of 32 bits, sorted; their order; scratch
      return;
    }
    const Buffer ids = local_ids();
    const int64_t wide = s_.tokens * s_.hidden * kFp32;
    Buffer grad = gather(outside);
    if (options_.bf16) grad = t_.make(wide);
    if (s_.cut_vocab) grad = t_.make(wide);  // without the tokens of other ranks
  }
  // --- model/loss_head.cpp
  int64_t chunk_tokens() const {
    const int64_t chosen = options_.training.head_chunk_tokens;
    return std::min(s_.tokens, chosen > 0 ? chosen : model::head_chunk_of(s_.tokens));
  }
  Buffer chunk_of_logits(int64_t width, int64_t element) {
    return t_.make(chunk_tokens() * width * element);
  }
  /// Taken ahead on GPUs, where rows begin at multiples of 64 elements.
  Buffer memory_for_logits() {
    return s_.on_gpu ? chunk_of_logits((s_.vocab + 63) / 64 * 64, s_.element) : Buffer{};
  }
  HeadInput head_input(Stream stream) {
    Norm normed = norm(stream);
    stream = {};
    HeadInput head;
    head.sum = std::move(normed.sum);
    head.statistics = std::move(normed.statistics);
    head.input = gather(normed.output);
    return head;
  }
  Buffer head_backward(HeadInput kept, Buffer for_logits) {
    Buffer partial = columns(s_.hidden);
    {
      const bool widened = options_.bf16 && !s_.on_gpu;  // on GPUs bf16 stays
      // Of one chunk: the others take its memory again.
      Buffer logits = s_.on_gpu ? std::move(for_logits) : chunk_of_logits(s_.vocab, s_.element);
      Buffer exp = widened ? chunk_of_logits(s_.vocab, kFp32) : std::move(logits);
      logits.reset();
      const Buffer statistics = t_.make(3 * chunk_tokens() * kFp32);
      Buffer grad_logits = widened ? chunk_of_logits(s_.vocab, s_.element) : std::move(exp);
      exp.reset();
      if (widened) t_.touch(chunk_tokens() * s_.vocab * kFp32, chunk_tokens() * s_.hidden * kFp32);
    }
    kept.input.reset();
    const Buffer grad = reduce(std::move(partial));
    return slice();
  }

  const model::DecoderConfig& config_;
  const ActivationOptions& options_;
  Sizes s_;
  Timeline t_;
};

}  // namespace

int64_t peak_activation_bytes(const model::DecoderConfig& config,
                              const ActivationOptions& options) {
  return Run(config, options).forward_backward();
}

int64_t push_buffer_bytes(const model::DecoderConfig& config, const ActivationOptions& options) {
  const Sizes s(config, options);
  constexpr int64_t kOfDirectCalls = 3 * comm::kMostDirectBytes;  // two slots and the control
  int64_t bytes = 0;
  if (pushes_over_dp(options)) bytes += kOfDirectCalls + comm::kPushLanes * comm::kPushSlotBytes;
  if (!pushes_over_tp(options)) return bytes;
  bytes += kOfDirectCalls;
  const int64_t slot = s.padded_tokens * s.hidden * s.element;
  if (s.sliced && slot > comm::kMostDirectBytes)
    bytes += (comm::kGatherSlots + comm::kReduceSlots) * slot;
  return bytes;
}

}  // namespace tptrain::planner
