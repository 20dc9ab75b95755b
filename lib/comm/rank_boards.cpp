#include "comm/rank_boards.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <map>
#include <new>
#include <optional>
#include <sstream>
#include <utility>

#include "base/host.h"
#include "base/processes.h"
#include "base/random_id.h"
#include "base/text.h"
#include "comm/nccl_status.h"

namespace tptrain::comm {

namespace {

// One that is stopped accepts a connection and does not answer: then the next of its host is asked.
constexpr std::chrono::milliseconds kAnswersWithin{600};
constexpr size_t kAsked = 3;

/// "host number\nhost name\nendpoint"
struct Card {
  std::string host_id;
  std::string host;
  std::string endpoint;
};

std::string text_of(const Card& card) {
  return cat(card.host_id, "\n", card.host, "\n", card.endpoint);
}

Card card_from(const std::string& text) {
  Card card;
  std::istringstream lines(text);
  std::getline(lines, card.host_id);
  std::getline(lines, card.host);
  std::getline(lines, card.endpoint);
  return card;
}

// Every second a rank without progress is looked at, until its program has had so many ticks: fewer
// do not say whether it asks the system for anything, and where cores are shared by many they take
// longer. Who has not had them for so long does not compute.
constexpr int64_t kLookNs = 1'000'000'000;
constexpr int64_t kTicks = 10;
constexpr int64_t kLongestNs = 20'000'000'000;

void look_at_process(RankState& state) {
  const ProcessStatus status = process_status(state.process);
  const std::string why =
      status.state == '?' ? std::string("is gone") : why_it_does_not_run(status);
  set_text(state.does_not_run, why);
  state.idle_ms = std::max<int64_t>(0, (monotonic_ns() - state.written_ns) / 1'000'000);
}

/// The ranks of this host by what the session can do among them.
class HostGroup final : public ControlGroup {
 public:
  explicit HostGroup(MpiSession& session) : session_(session) {}
  int rank() const override { return session_.local_rank(); }
  int size() const override { return session_.local_size(); }
  void barrier() override { session_.all_gather_on_host({}); }
  std::string broadcast(const std::string& bytes, int root) override {
    return session_.all_gather_on_host(rank() == root ? bytes : std::string())
        .at(static_cast<size_t>(root));
  }
  std::vector<std::string> all_gather(const std::string& bytes) override {
    return session_.all_gather_on_host(bytes);
  }
  int64_t sum(int64_t value) override {
    int64_t sum = 0;
    for (const std::string& text : all_gather(std::to_string(value))) sum += std::stoll(text);
    return sum;
  }
  int64_t max(int64_t value) override {
    for (const std::string& text : all_gather(std::to_string(value)))
      value = std::max<int64_t>(value, std::stoll(text));
    return value;
  }

 private:
  MpiSession& session_;
};

}  // namespace

bool SelfWatch::wants(int64_t now_ns) const { return !first_ || now_ns >= next_ns_; }

bool SelfWatch::computes_alone(int64_t now_ns, const ProcessStatus& status) {
  const bool runs = status.state == 'R';  // or waits for a core
  const bool asks = first_ && status.in_system != first_->in_system;
  const bool has_computed = first_ && status.in_program - first_->in_program >= kTicks;
  next_ns_ = now_ns + kLookNs;
  if (first_ && runs && !asks && !has_computed && now_ns - since_ns_ < kLongestNs) return alone_;
  alone_ = runs && !asks && has_computed;
  first_ = status;
  since_ns_ = now_ns;
  return alone_;
}

RankBoards::RankBoards(ControlGroup& world, ControlGroup& host) : own_(&alone_) {
  std::string why_not;
  segment_ = HostSegment::create(
      host, host.size() * static_cast<int64_t>(sizeof(SharedState)),
      [&](void* memory) {
        for (int i = 0; i < host.size(); ++i)
          new (static_cast<SharedState*>(memory) + i) SharedState;
      },
      &why_not);
  if (segment_ != nullptr) {
    states_ = host.size();
    own_ = static_cast<SharedState*>(segment_->memory()) + host.rank();
  }
  RankState first{.written_ns = monotonic_ns(), .rank = world.rank(), .process = getpid()};
  set_text(first.host, host_name());
  own_->write(first);
  host.barrier();  // so that every state has its rank
  if (host.size() == world.size()) return;

  secret_ = world.broadcast(world.rank() == 0 ? random_id() : std::string(), 0);
  server_ = std::make_unique<BoardServer>(secret_, [this] { return states_here(); });
  const std::string host_id = host.broadcast(host.rank() == 0 ? random_id() : std::string(), 0);
  const std::vector<std::string> cards = world.all_gather(
      text_of({.host_id = host_id, .host = host_name(), .endpoint = to_wire(server_->endpoint())}));
  std::map<std::string, size_t> places;
  for (size_t rank = 0; rank < cards.size(); ++rank) {
    const Card card = card_from(cards[rank]);
    if (card.host_id == host_id) continue;
    const auto [place, is_new] = places.emplace(card.host_id, neighbours_.size());
    if (is_new) neighbours_.push_back({.name = card.host, .ranks = {}, .endpoints = {}});
    neighbours_[place->second].ranks.push_back(static_cast<int>(rank));
    neighbours_[place->second].endpoints.push_back(endpoint_from_wire(card.endpoint));
  }
}

std::vector<RankState> RankBoards::states_here() const {
  std::vector<RankState> states;
  const SharedState* first = segment_ ? static_cast<SharedState*>(segment_->memory()) : own_;
  for (int i = 0; i < states_; ++i) {
    states.push_back(first[i].read());
    look_at_process(states.back());
  }
  return states;
}

RankBoards::Look RankBoards::look() const {
  std::vector<std::future<std::optional<std::vector<RankState>>>> answers;
  for (const Neighbour& neighbour : neighbours_) {
    answers.push_back(std::async(std::launch::async, [this, &neighbour] {
      std::optional<std::vector<RankState>> states;
      for (size_t i = 0; i < std::min(kAsked, neighbour.endpoints.size()) && !states; ++i)
        states = ask_for_states(neighbour.endpoints[i], secret_, kAnswersWithin);
      return states;
    }));
  }
  Look look{.ranks = states_here(), .silent = {}};
  for (size_t i = 0; i < answers.size(); ++i) {
    if (const auto states = answers[i].get()) {
      look.ranks.insert(look.ranks.end(), states->begin(), states->end());
    } else {
      look.silent.push_back(cat(neighbours_[i].name,
                                neighbours_[i].ranks.size() == 1 ? " (rank " : " (ranks ",
                                join(neighbours_[i].ranks), ")"));
    }
  }
  std::sort(look.ranks.begin(), look.ranks.end(),
            [](const RankState& a, const RankState& b) { return a.rank < b.rank; });
  return look;
}

void RankBoards::show(const ProgressBoard::Entry& entry) {
  RankState state = own_->read();
  state.gpu = gpu_;
  state.step = entry.step;
  state.bytes = entry.bytes;
  state.collectives = entry.collectives;
  if (std::exchange(writes_, entry.writes) != entry.writes) {
    state.written_ns = monotonic_ns();
    state.computes_alone = 0;
    watch_.restart();
  } else if (const int64_t now = monotonic_ns(); watch_.wants(now)) {
    state.computes_alone = watch_.computes_alone(now, process_status(state.process)) ? 1 : 0;
  }
  set_text(state.phase, entry.phase);
  set_text(state.axis, entry.axis);
  set_text(state.call, entry.call);
  own_->write(state);
}

StallSpeaker RankBoards::speak_before_the_end() {
  RankState own = own_->read();
  own.ends_itself = 1;
  own_->write(own);
  const Look around = look();
  const std::string name = name_of(own);
  return {.rank = own.rank,
          .place = name.substr(name.find(" on ")),
          .behind = who_is_behind(around.ranks, own.rank, around.silent),
          .transport = nccl_status()};
}

std::shared_ptr<RankBoards> boards_of(MpiSession& session) {
  HostGroup host(session);
  return std::make_shared<RankBoards>(session, host);
}

Watchdog::Options watchdog_options(const std::shared_ptr<RankBoards>& boards,
                                   std::chrono::milliseconds limit) {
  return {.limit = limit,
          .rank = boards->own().rank,
          .show = [boards](const ProgressBoard::Entry& entry) { boards->show(entry); },
          .look_around = [boards] { return boards->speak_before_the_end(); }};
}

}  // namespace tptrain::comm
