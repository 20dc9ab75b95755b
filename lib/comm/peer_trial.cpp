#include "comm/peer_trial.h"

#include <algorithm>
#include <exception>
#include <random>

#include "base/error.h"
#include "base/random_id.h"
#include "base/text.h"

namespace tptrain::comm {

namespace {

// Another round's words differ, so that what was left there is not taken for what should have come;
// writer and reader both make them.
void draw(uint64_t seed, PeerEngine engine, int round, int writer, int reader, uint32_t* words,
          int64_t count) {
  std::seed_seq sequence = {static_cast<uint32_t>(seed),   static_cast<uint32_t>(seed >> 32),
                            static_cast<uint32_t>(engine), static_cast<uint32_t>(round),
                            static_cast<uint32_t>(writer), static_cast<uint32_t>(reader)};
  std::mt19937_64 random(sequence);
  for (int64_t i = 0; i + 1 < count; i += 2) {
    const uint64_t two = random();
    words[i] = static_cast<uint32_t>(two);
    words[i + 1] = static_cast<uint32_t>(two >> 32);
  }
  if (count % 2 == 1) words[count - 1] = static_cast<uint32_t>(random());
}

uint64_t common_seed(ControlGroup& group) {
  return std::stoull(group.broadcast(cat(random_word()), 0));
}

/// What this rank received by one engine, against what it should have: "" or the first fault.
std::string fault_of(const PeerWords& came, uint64_t seed, PeerEngine engine, int reader,
                     const std::vector<std::string>& names) {
  std::vector<uint32_t> expected(static_cast<size_t>(came.words));
  for (int round = 0; round < came.rounds; ++round) {
    for (int writer = 0; writer < came.ranks; ++writer) {
      if (writer == reader) continue;
      draw(seed, engine, round, writer, reader, expected.data(), came.words);
      const uint32_t* got = came.of(round, writer);
      if (std::equal(expected.begin(), expected.end(), got)) continue;
      int64_t wrong = 0;
      for (int64_t i = 0; i < came.words; ++i) wrong += got[i] != expected[i] ? 1 : 0;
      return cat("what ", names[writer], " wrote into the memory of ", names[reader], " by ",
                 engine == PeerEngine::copies ? "its copy engine" : "stores of a kernel",
                 " did not arrive as it was sent (round ", round + 1, " of ", came.rounds, ": ",
                 wrong, " of ", came.words, " words)");
    }
  }
  return "";
}

std::string own_fault(PeerProbe& probe, uint64_t seed, PeerEngine engine, int rank,
                      const std::vector<std::string>& names, int rounds, int64_t words) {
  const int ranks = static_cast<int>(names.size());
  PeerWords sent(rounds, ranks, words);
  for (int round = 0; round < rounds; ++round) {
    for (int reader = 0; reader < ranks; ++reader) {
      if (reader != rank) draw(seed, engine, round, rank, reader, sent.of(round, reader), words);
    }
  }
  try {
    return fault_of(probe.exchange(engine, sent), seed, engine, rank, names);
  } catch (const std::exception& error) {
    return cat("memory of ", names[rank], "'s neighbours could not be tried: ", error.what());
  }
}

}  // namespace

std::string peer_fault(ControlGroup& group, PeerProbe& probe, const std::vector<std::string>& names,
                       const PeerTrialSize& size) {
  const uint64_t seed = common_seed(group);
  for (const PeerEngine engine : {PeerEngine::copies, PeerEngine::stores}) {
    const int64_t words = engine == PeerEngine::copies ? size.copied_words : size.stored_words;
    const std::string own = own_fault(probe, seed, engine, group.rank(), names, size.rounds, words);
    // Every rank reads all: the lowest one's word is everybody's.
    for (const std::string& of_rank : group.all_gather(own)) {
      if (!of_rank.empty()) return of_rank;
    }
  }
  return "";
}

}  // namespace tptrain::comm
