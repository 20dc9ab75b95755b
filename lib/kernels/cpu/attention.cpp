// Causal attention in blocks of queries and keys that stay in the cache: products by small_gemm,
// softmax one row at a time, blocks in the future never touched. A group's keys and values are
// packed once for all its query heads, and their gradients summed in place. Source: Dao,
// "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning", 2023,
// algorithms 1 and 2.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

namespace {

constexpr int64_t kQueries = 32;  // a block of scores, 32 x 128 floats, is 16 KiB
constexpr int64_t kKeys = 128;

/// Sizes and strides of one task.
struct Frame {
  explicit Frame(const Attention& args)
      : positions(args.positions),
        rows(padded(args.positions)),
        head_dim(args.head_dim),
        columns(padded(args.head_dim)),
        group(args.heads / args.kv_heads),
        qkv_row(args.batch * (args.heads + 2 * args.kv_heads) * args.head_dim),
        context_row(args.batch * args.heads * args.head_dim),
        scale(static_cast<float>(1.0 / std::sqrt(static_cast<double>(args.head_dim)))) {}

  int64_t positions;  // S
  int64_t rows;       // S padded
  int64_t head_dim;   // D
  int64_t columns;    // D padded
  int64_t group;
  int64_t qkv_row;  // floats from one position to the next
  int64_t context_row;
  float scale;

  int64_t qkv_offset(const Attention& args, int64_t b, int64_t head) const {
    return (b * (args.heads + 2 * args.kv_heads) + head) * head_dim;
  }
  int64_t context_offset(const Attention& args, int64_t b, int64_t head) const {
    return (b * args.heads + head) * head_dim;
  }
};

// Rows of one head lie a whole token apart, often in a page of their own, where no hardware
// prefetcher follows: the loops ask for them ahead.
constexpr int64_t kRowsAhead = 12;
constexpr int64_t kFloatsPerLine = 16;

TPTRAIN_INLINE void prefetch_row(const float* row, int64_t floats) {
  for (int64_t i = 0; i < floats; i += kFloatsPerLine) __builtin_prefetch(row + i);
}
TPTRAIN_INLINE void prefetch_row_to_write(float* row, int64_t floats) {
  for (int64_t i = 0; i < floats; i += kFloatsPerLine) __builtin_prefetch(row + i, 1);
}

/// [S] rows of D, far apart, to [rows, columns] side by side, padded with zeros.
TPTRAIN_CPU_CLONES
void pack(const float* from, int64_t from_row, const Frame& f, float* to) {
  for (int64_t s = 0; s < f.positions; ++s) {
    const float* __restrict source = from + s * from_row;
    prefetch_row(source + kRowsAhead * from_row, f.head_dim);  // harmless beyond the end
    float* __restrict target = to + s * f.columns;
    for (int64_t d = 0; d < f.head_dim; ++d) target[d] = source[d];
    for (int64_t d = f.head_dim; d < f.columns; ++d) target[d] = 0.0f;
  }
  for (int64_t i = f.positions * f.columns; i < f.rows * f.columns; ++i) to[i] = 0.0f;
}

/// [rows, columns] to its transpose [D, rows].
TPTRAIN_CPU_CLONES
void transpose(const float* from, const Frame& f, float* to) {
  for (int64_t s = 0; s < f.rows; s += kGemmColumns) {
    for (int64_t d = 0; d < f.head_dim; ++d) {
      for (int64_t i = 0; i < kGemmColumns; ++i)
        to[d * f.rows + s + i] = from[(s + i) * f.columns + d];
    }
  }
}

TPTRAIN_CPU_CLONES
void unpack(const float* from, const Frame& f, float* to, int64_t to_row) {
  for (int64_t s = 0; s < f.positions; ++s) {
    const float* __restrict source = from + s * f.columns;
    float* __restrict target = to + s * to_row;
    prefetch_row_to_write(target + kRowsAhead * to_row, f.head_dim);
    for (int64_t d = 0; d < f.head_dim; ++d) target[d] = source[d];
  }
}

/// State of the running softmax of a block of query rows.
struct Softmax {
  float maximum[kQueries];
  float sum[kQueries];
};

/// Scores of queries [first_query, first_query + queries) against keys [first_key, first_key +
/// keys) to unnormalised probabilities in place. Rescales the context rows where the maximum rose.
TPTRAIN_CPU_CLONES
void softmax_block(float* scores, Softmax& state, float* context, const Frame& f,
                   int64_t first_query, int64_t queries, int64_t first_key, int64_t keys) {
  for (int64_t i = 0; i < queries; ++i) {
    float* __restrict row = scores + i * kKeys;
    const int64_t seen = std::clamp<int64_t>(first_query + i + 1 - first_key, 0, keys);
    // Whole vectors from here on: future keys have weight exp(-inf) = 0.
    for (int64_t j = seen; j < keys; ++j) row[j] = -INFINITY;
    int32_t best = ordered_key(state.maximum[i]);
#pragma omp simd reduction(max : best)
    for (int64_t j = 0; j < keys; ++j) {
      row[j] *= f.scale;
      const int32_t key = ordered_key(row[j]);
      best = key > best ? key : best;
    }
    const float maximum = value_of_key(best);
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < keys; ++j) {
      const float value = exp_f32(row[j] - maximum);
      row[j] = value;
      sum += value;
    }
    if (first_key > 0 &&
        maximum != state.maximum[i]) {  // true for NaN as well: it must reach the sum
      const float shrink = exp_f32(state.maximum[i] - maximum);
      state.sum[i] *= shrink;
      float* __restrict target = context + i * f.columns;
      for (int64_t d = 0; d < f.columns; ++d) target[d] *= shrink;
    }
    state.maximum[i] = maximum;
    state.sum[i] += sum;
  }
}

TPTRAIN_CPU_CLONES
void finish_rows(const float* block, const Softmax& state, const Frame& f, int64_t queries,
                 float* context, float* logsumexp) {
  for (int64_t i = 0; i < queries; ++i) {
    const float inverse = 1.0f / state.sum[i];
    const float* __restrict source = block + i * f.columns;
    float* __restrict target = context + i * f.context_row;
    prefetch_row_to_write(target + kRowsAhead * f.context_row, f.head_dim);
    for (int64_t d = 0; d < f.head_dim; ++d) target[d] = source[d] * inverse;
    logsumexp[i] = state.maximum[i] + std::log(state.sum[i]);
  }
}

/// scores -> probabilities, and grad_probabilities -> grad_scores, both in place; zero in the
/// future.
TPTRAIN_CPU_CLONES
void softmax_backward_block(float* scores, float* grads, const float* logsumexp,
                            const float* row_dot, const Frame& f, int64_t first_query,
                            int64_t queries, int64_t first_key, int64_t keys) {
  for (int64_t i = 0; i < queries; ++i) {
    float* __restrict probability = scores + i * kKeys;
    float* __restrict grad = grads + i * kKeys;
    const int64_t seen = std::clamp<int64_t>(first_query + i + 1 - first_key, 0, keys);
    const float shift = logsumexp[i];
    const float dot = row_dot[i];
#pragma omp simd
    for (int64_t j = 0; j < keys;
         ++j) {  // whole vectors; what lies in the future is overwritten, whatever it became
      const float p = exp_f32(probability[j] * f.scale - shift);
      probability[j] = p;
      grad[j] = p * (grad[j] - dot) * f.scale;
    }
    for (int64_t j = seen; j < keys; ++j) probability[j] = grad[j] = 0.0f;
  }
}

/// Sum over d of grad (packed) * context for each query: what softmax's backward subtracts.
TPTRAIN_CPU_CLONES
void row_dots(const float* grad, const float* context, const Frame& f, float* dots) {
  for (int64_t s = 0; s < f.positions; ++s) {
    const float* __restrict a = grad + s * f.columns;
    const float* __restrict b = context + s * f.context_row;
    prefetch_row(b + kRowsAhead * f.context_row, f.head_dim);
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (int64_t d = 0; d < f.head_dim; ++d) dot += a[d] * b[d];
    dots[s] = dot;
  }
}

/// Keys of a block that any of its queries sees, padded: the rest is never computed.
int64_t keys_in_block(int64_t first_key, int64_t last_query) {
  return std::min(kKeys, padded(last_query - first_key));
}

// The products of a block: of `rows` queries with `keys` keys. Scores and their gradients have rows
// of kKeys, all else the padded columns of a head.

/// scores = rows * keys^T; `keys_transposed` is [D, rows of the sequence].
void scores_of(const float* rows, const float* keys_transposed, const Frame& f, int64_t queries,
               int64_t keys, float* scores) {
  small_gemm({.a = rows,
              .a_row = f.columns,
              .b = keys_transposed,
              .b_row = f.rows,
              .c = scores,
              .c_row = kKeys,
              .m = queries,
              .n = keys,
              .k = f.head_dim},
             Into::overwrite);
}

/// by_query (+)= scores * by_key.
void sum_over_keys(const float* scores, const float* by_key, const Frame& f, int64_t queries,
                   int64_t keys, float* by_query, Into into) {
  small_gemm({.a = scores,
              .a_row = kKeys,
              .b = by_key,
              .b_row = f.columns,
              .c = by_query,
              .c_row = f.columns,
              .m = queries,
              .n = f.columns,
              .k = keys},
             into);
}

/// by_key += scores^T * by_query.
void add_over_queries(const float* scores, const float* by_query, const Frame& f, int64_t queries,
                      int64_t keys, float* by_key) {
  small_gemm({.a = scores,
              .a_row = 1,
              .a_column = kKeys,
              .b = by_query,
              .b_row = f.columns,
              .c = by_key,
              .c_row = f.columns,
              .m = keys,
              .n = f.columns,
              .k = queries},
             Into::add);
}

}  // namespace

int64_t attention_scratch(const Attention& args) {
  const Frame f(args);
  return 4 * f.rows * f.columns + kQueries * (kKeys + f.columns);
}

void attention_tasks(const Attention& args, float* scratch, int64_t begin, int64_t end) {
  const Frame f(args);
  const int64_t matrix = f.rows * f.columns;
  float* q = scratch;                        // [rows, columns]
  float* k_transposed = q + matrix;          // [D, rows]
  float* v = k_transposed + matrix;          // [rows, columns]
  float* k = v + matrix;                     // [rows, columns]
  float* scores = k + matrix;                // [kQueries, kKeys]
  float* block = scores + kQueries * kKeys;  // [kQueries, columns]: context, not yet normalised
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / args.kv_heads;
    const int64_t kv_head = task % args.kv_heads;
    pack(args.qkv + f.qkv_offset(args, b, args.heads + kv_head), f.qkv_row, f, k);
    transpose(k, f, k_transposed);
    pack(args.qkv + f.qkv_offset(args, b, args.heads + args.kv_heads + kv_head), f.qkv_row, f, v);
    for (int64_t head = kv_head * f.group; head < (kv_head + 1) * f.group; ++head) {
      pack(args.qkv + f.qkv_offset(args, b, head), f.qkv_row, f, q);
      for (int64_t first = 0; first < f.positions; first += kQueries) {
        const int64_t queries = std::min(kQueries, f.positions - first);
        Softmax state;
        std::fill_n(state.maximum, kQueries, -INFINITY);
        std::fill_n(state.sum, kQueries, 0.0f);
        for (int64_t key = 0; key < first + queries; key += kKeys) {
          const int64_t keys = keys_in_block(key, first + queries);
          scores_of(q + first * f.columns, k_transposed + key, f, queries, keys, scores);
          softmax_block(scores, state, block, f, first, queries, key, keys);
          sum_over_keys(scores, v + key * f.columns, f, queries, keys, block,
                        key == 0 ? Into::overwrite : Into::add);
        }
        finish_rows(block, state, f, queries,
                    args.context + first * f.context_row + f.context_offset(args, b, head),
                    args.logsumexp + (b * args.heads + head) * f.positions + first);
      }
    }
  }
}

int64_t attention_backward_scratch(const Attention& args) {
  const Frame f(args);
  return 9 * f.rows * f.columns + 2 * kQueries * kKeys + f.rows;
}

void attention_backward_tasks(const Attention& args, float* scratch, int64_t begin, int64_t end) {
  const Frame f(args);
  const int64_t matrix = f.rows * f.columns;
  float* q = scratch;  // all [rows, columns] but the transposed, which are [D, rows]
  float* k = q + matrix;
  float* v = k + matrix;
  float* k_transposed = v + matrix;
  float* v_transposed = k_transposed + matrix;
  float* grad = v_transposed + matrix;  // of the context
  float* grad_q = grad + matrix;
  float* grad_k = grad_q + matrix;
  float* grad_v = grad_k + matrix;
  float* scores = grad_v + matrix;                 // [kQueries, kKeys]
  float* grad_scores = scores + kQueries * kKeys;  // [kQueries, kKeys]
  float* dots = grad_scores + kQueries * kKeys;    // [rows]
  for (int64_t task = begin; task < end; ++task) {
    const int64_t b = task / args.kv_heads;
    const int64_t kv_head = task % args.kv_heads;
    const int64_t k_offset = f.qkv_offset(args, b, args.heads + kv_head);
    const int64_t v_offset = f.qkv_offset(args, b, args.heads + args.kv_heads + kv_head);
    pack(args.qkv + k_offset, f.qkv_row, f, k);
    pack(args.qkv + v_offset, f.qkv_row, f, v);
    transpose(k, f, k_transposed);
    transpose(v, f, v_transposed);
    std::fill_n(grad_k, matrix, 0.0f);
    std::fill_n(grad_v, matrix, 0.0f);
    for (int64_t head = kv_head * f.group; head < (kv_head + 1) * f.group; ++head) {
      const int64_t q_offset = f.qkv_offset(args, b, head);
      const int64_t context_offset = f.context_offset(args, b, head);
      const float* logsumexp = args.logsumexp + (b * args.heads + head) * f.positions;
      pack(args.qkv + q_offset, f.qkv_row, f, q);
      pack(args.grad_context + context_offset, f.context_row, f, grad);
      row_dots(grad, args.context + context_offset, f, dots);
      for (int64_t first = 0; first < f.positions; first += kQueries) {
        const int64_t queries = std::min(kQueries, f.positions - first);
        for (int64_t key = 0; key < first + queries; key += kKeys) {
          const int64_t keys = keys_in_block(key, first + queries);
          scores_of(q + first * f.columns, k_transposed + key, f, queries, keys, scores);
          scores_of(grad + first * f.columns, v_transposed + key, f, queries, keys, grad_scores);
          softmax_backward_block(scores, grad_scores, logsumexp + first, dots + first, f, first,
                                 queries, key, keys);
          sum_over_keys(grad_scores, k + key * f.columns, f, queries, keys,
                        grad_q + first * f.columns, key == 0 ? Into::overwrite : Into::add);
          add_over_queries(scores, grad + first * f.columns, f, queries, keys,
                           grad_v + key * f.columns);
          add_over_queries(grad_scores, q + first * f.columns, f, queries, keys,
                           grad_k + key * f.columns);
        }
      }
      unpack(grad_q, f, args.grad_qkv + q_offset, f.qkv_row);
    }
    unpack(grad_k, f, args.grad_qkv + k_offset, f.qkv_row);
    unpack(grad_v, f, args.grad_qkv + v_offset, f.qkv_row);
  }
}

}  // namespace tptrain::kernels::cpu
