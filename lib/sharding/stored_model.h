// How a model's tensors lie in files of another convention (Hugging Face's): under which names, and
// as which rows or columns of what. Declared by each family, used by import and export; neither
// knows the other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tptrain::sharding {

/// One canonical tensor (the names and shapes of checkpoints and ShardSpecs) as the whole or a part
/// of one stored tensor.
struct StoredTensor {
  std::string name;                   // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;         // [out, in] or [n]
  std::string stored_name;            // "transformer.h.0.attn.c_attn.weight"
  std::vector<int64_t> stored_shape;  // [in, 3 * out]
  bool transposed = false;            // stored as [in, out]
  int64_t first = 0;  // where its `out` features (or n elements) begin among the stored ones

  bool operator==(const StoredTensor&) const = default;
};

struct StoredModel {
  /// In the order in which export writes them; the parts of one stored tensor stand side by side,
  /// in rising `first`, and cover it.
  std::vector<StoredTensor> tensors;
  /// Endings of stored names that hold no weights of their own ("rotary_emb.inv_freq", a tied
  /// head's copy): skipped on import, never exported.
  std::vector<std::string> ignored_suffixes;
  /// A beginning of stored names that some files lack ("transformer."); "" where none does.
  std::string optional_prefix;
};

}  // namespace tptrain::sharding
