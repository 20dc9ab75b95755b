// Writes between GPUs are tried before they are believed: a faulty engine between one pair is
// found, named alike on every rank, and nothing that works is.
#include "comm/peer_trial.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "device/gpu_environment.h"
#include "support/catch.h"
#include "support/temp_dir.h"
#include "support/thread_group.h"

namespace tptrain::testing {
namespace {

using comm::PeerEngine;
using comm::PeerWords;

constexpr comm::PeerTrialSize kSmall = {.rounds = 5, .copied_words = 33, .stored_words = 8};

/// What arrives is what was sent but for what `spoil` makes of it: (engine, writer, reader, words).
using Spoil = std::function<void(PeerEngine, int, int, PeerWords&)>;

/// Memory of a host in the place of a GPU's.
class HostProbe final : public comm::PeerProbe {
 public:
  HostProbe(comm::ControlGroup& group, Spoil spoil) : group_(group), spoil_(std::move(spoil)) {}
  PeerWords exchange(PeerEngine engine, const PeerWords& sent) override {
    const std::vector<std::string> of_ranks = group_.all_gather(
        std::string(reinterpret_cast<const char*>(sent.values.data()), sent.values.size() * 4));
    PeerWords came(sent.rounds, sent.ranks, sent.words);
    for (int writer = 0; writer < sent.ranks; ++writer) {
      PeerWords theirs(sent.rounds, sent.ranks, sent.words);
      std::copy_n(of_ranks[writer].data(), of_ranks[writer].size(),
                  reinterpret_cast<char*>(theirs.values.data()));
      for (int round = 0; round < sent.rounds; ++round)
        std::copy_n(theirs.of(round, group_.rank()), sent.words, came.of(round, writer));
      if (writer != group_.rank()) spoil_(engine, writer, group_.rank(), came);
    }
    return came;
  }

 private:
  comm::ControlGroup& group_;
  Spoil spoil_;
};

/// What each of `ranks` is told.
std::vector<std::string> faults(int ranks, const Spoil& spoil) {
  std::vector<std::string> told(static_cast<size_t>(ranks));
  std::vector<std::string> names;
  for (int rank = 0; rank < ranks; ++rank)
    names.push_back(cat("GPU ", static_cast<char>('a' + rank)));
  run_ranks(ranks, [&](comm::ControlGroup& group) {
    HostProbe probe(group, spoil);
    told[group.rank()] = comm::peer_fault(group, probe, names, kSmall);
  });
  return told;
}

}  // namespace

TEST_CASE("GPUs that bring what was sent have no fault") {
  for (const int ranks : {2, 4, 8}) {
    const std::vector<std::string> told = faults(ranks, [](PeerEngine, int, int, PeerWords&) {});
    CHECK(told == std::vector<std::string>(static_cast<size_t>(ranks), ""));
  }
}

TEST_CASE("one word of one round between one pair is found, and named alike on every rank") {
  const PeerEngine faulty = GENERATE(PeerEngine::copies, PeerEngine::stores);
  const std::string way = faulty == PeerEngine::copies ? "its copy engine" : "stores of a kernel";
  const std::vector<std::string> told =
      faults(4, [&](PeerEngine engine, int writer, int reader, PeerWords& came) {
        if (engine == faulty && writer == 3 && reader == 1) came.of(4, writer)[7] ^= 1u << 30;
      });
  for (const std::string& text : told) {
    CHECK(text == cat("what GPU d wrote into the memory of GPU b by ", way,
                      " did not arrive as it was sent (round 5 of 5: 1 of ",
                      faulty == PeerEngine::copies ? 33 : 8, " words)"));
  }
}

TEST_CASE("what lies there from the round before is not taken for what was sent") {
  const std::vector<std::string> told =
      faults(2, [](PeerEngine engine, int writer, int reader, PeerWords& came) {
        if (engine == PeerEngine::stores && reader == 0)
          std::copy_n(came.of(1, writer), came.words, came.of(2, writer));
      });
  for (const std::string& text : told) CHECK(has(text, "GPU b wrote into the memory of GPU a"));
  CHECK(has(told[0], "round 3 of 5"));
}

TEST_CASE("a probe that throws on one rank is a fault on every rank") {
  const std::vector<std::string> told = faults(3, [](PeerEngine, int, int reader, PeerWords&) {
    if (reader == 2) throw std::runtime_error("no such memory");
  });
  for (const std::string& text : told) CHECK(has(text, "GPU c"));
  CHECK(has(told[0], "no such memory"));
}

TEST_CASE("queues of the device: all where nobody says, and what somebody says") {
  unsetenv("CUDA_DEVICE_MAX_CONNECTIONS");
  CHECK(device::queues_of_device() == 8);
  device::ask_for_queues();
  CHECK(device::queues_of_device() == 32);
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "1", 1);
  device::ask_for_queues();
  CHECK(device::queues_of_device() == 1);
}

}  // namespace tptrain::testing
