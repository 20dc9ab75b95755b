// What a rank is doing, as other ranks may read it: plain bytes of a fixed size, in memory that the
// processes of a host share, or on its way to another host. A rank that is stopped does not answer;
// its state can be read all the same.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace tptrain {

struct RankState {
  int64_t step = -1;        // -1: none
  int64_t bytes = 0;        // of the last collective
  int64_t collectives = 0;  // its number, from 1; 0: none yet
  int64_t written_ns = 0;   // when the state was written, by this host's monotonic clock
  int64_t idle_ms = 0;      // how long that is ago; filled by whoever reads
  int32_t rank = 0;
  int32_t process = 0;
  int32_t gpu = -1;            // -1: none
  int32_t ends_itself = 0;     // 1: its own watchdog has spoken, and ends it
  int32_t computes_alone = 0;  // 1: runs and asks the system for nothing
  char host[64] = {};          // texts end with a zero
  char phase[64] = {};
  char axis[16] = {};
  char call[32] = {};
  char does_not_run[64] = {};  // "is stopped (SIGSTOP)"; filled by whoever reads
};
static_assert(std::is_trivially_copyable_v<RankState> && sizeof(RankState) % 8 == 0);

/// Copies what fits.
template <size_t N>
void set_text(char (&to)[N], std::string_view text) {
  const size_t length = text.size() < N - 1 ? text.size() : N - 1;
  text.copy(to, length);
  to[length] = '\0';
}

int64_t monotonic_ns();

/// A state in shared memory: one writer, any readers, no locks. Zeroed memory is an empty one.
class SharedState {
 public:
  void write(const RankState& state);
  /// Waits for nobody for longer than this: where the writer was stopped in the middle of a write,
  /// the state is read as it stands. A write takes less than a microsecond: a moment leaves a gap
  /// also in what a writer writes without a pause, unless the system takes its core away.
  RankState read(int64_t within_ns = 50'000'000) const;

 private:
  static constexpr size_t kWords = sizeof(RankState) / 8;
  std::atomic<uint64_t> version_ = 0;  // odd: a write is under way
  std::atomic<uint64_t> words_[kWords] = {};
};

/// "rank 1 on node1 (GPU 1)".
std::string name_of(const RankState& state);
/// "step 57, forward and backward, last collective "tp: all_gather of 67.1 MB, number 1234"".
std::string doing_of(const RankState& state);

/// Which rank the others wait for, in one line: one that does not run, a host that does not answer,
/// else the ones that have begun the fewest collectives, which every rank begins in the same order.
/// Of several of these, or where all have begun the same, the only one that asks the system for
/// nothing, if there is one: who waits in MPI gives its core away again and again, or sleeps.
/// `ranks`: as many as are known; `silent_hosts`: with their ranks, "node2 (ranks 4, 5)".
std::string who_is_behind(const std::vector<RankState>& ranks, int own_rank,
                          const std::vector<std::string>& silent_hosts);

}  // namespace tptrain
