// What the kernels ask of the device they are about to run on (the current one). Plain numbers.
#pragma once

#include <optional>

namespace tptrain::kernels::cuda {

struct Properties {
  int multiprocessors = 0;
  /// Shared memory that a block may have at most, and that the blocks of a multiprocessor share.
  int shared_bytes_of_block = 0;
  int shared_bytes_of_multiprocessor = 0;
  int capability = 0;  // 90 for 9.0
};
Properties properties();

inline int multiprocessors() { return properties().multiprocessors; }
inline int shared_bytes_of_block() { return properties().shared_bytes_of_block; }
inline int shared_bytes_of_multiprocessor() { return properties().shared_bytes_of_multiprocessor; }
inline int capability() { return properties().capability; }

/// The fused attentions of which a card may have either; see attention_race.h.
enum class FusedAttention { cudnn, flash, flash3 };
/// What a test chose; else none.
std::optional<FusedAttention> chosen_attention();

/// For tests: as long as it lives, calls take the paths that they would take on that card,
/// whichever is there. One at a time; not while another thread launches kernels.
class TakenFor {
 public:
  explicit TakenFor(const Properties& card, std::optional<FusedAttention> attention = {});
  ~TakenFor();
  TakenFor(const TakenFor&) = delete;
  TakenFor& operator=(const TakenFor&) = delete;
};

}  // namespace tptrain::kernels::cuda
