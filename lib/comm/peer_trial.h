// Whether what one GPU writes into another's memory arrives there: tried with random words before
// anything is trained on it. A driver that says yes to peer access may still lose or spoil writes
// (switches on PCIe with access control, an IOMMU, drivers for cards that have no P2P). Plain
// values behind an interface: the rules can be tried without a GPU. Internal to comm.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/control.h"

namespace tptrain::comm {

/// Both ways by which direct copies write: copy engines with flags of the stream behind them, and
/// stores of a kernel with flags released behind them.
enum class PeerEngine { copies, stores };

/// [round][rank][word]: for each other rank, or from each; a rank's own words mean nothing.
struct PeerWords {
  int rounds = 0;
  int ranks = 0;
  int64_t words = 0;
  std::vector<uint32_t> values;

  PeerWords(int rounds_, int ranks_, int64_t words_)
      : rounds(rounds_),
        ranks(ranks_),
        words(words_),
        values(static_cast<size_t>(words_ * rounds_ * ranks_)) {}
  uint32_t* of(int round, int rank) { return values.data() + (round * ranks + rank) * words; }
  const uint32_t* of(int round, int rank) const {
    return values.data() + (round * ranks + rank) * words;
  }
};

/// One rank's ways into the memory of the others of its group.
class PeerProbe {
 public:
  virtual ~PeerProbe() = default;
  /// Each rank writes `sent` to the others, round by round through the same few places, and reads
  /// what they wrote as soon as their flag says so: what came. Where a flag does not come it gives
  /// up after some seconds and returns what lies there. All ranks of the group call it at once; it
  /// says nothing to the others on the host.
  virtual PeerWords exchange(PeerEngine engine, const PeerWords& sent) = 0;
};

struct PeerTrialSize {
  int rounds = 64;
  int64_t copied_words = 16384;  // of a pair and round: 64 KiB
  int64_t stored_words = 4096;   // 16 KiB
};

/// Tries every pair of the group in both directions by both engines: "" where all came as it was
/// sent, else what came wrong, between which of `names` (one a rank, "GPU 0000:1b:00.0").
/// Collective; the same text on every rank. What the probe throws counts as a fault.
std::string peer_fault(ControlGroup& group, PeerProbe& probe, const std::vector<std::string>& names,
                       const PeerTrialSize& size = {});

}  // namespace tptrain::comm
