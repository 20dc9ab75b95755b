#include "launch/hosts.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::launch {
namespace {

constexpr int64_t kMostSlots = 1024;

Problem bad_hosts(const std::string& received) {
  return problem(received).at("--hosts").must("be hosts and their ranks: node1:4,node2:4");
}

Host host_of(const std::string& text) {
  const size_t colon = text.rfind(':');
  Host host{.name = text.substr(0, colon)};
  if (host.name.empty()) throw ConfigError(bad_hosts(cat("\"", text, "\" names no host")));
  if (colon == std::string::npos) return host;
  const char* end = text.data() + text.size();
  const auto [parsed, error] = std::from_chars(text.data() + colon + 1, end, host.slots);
  if (error != std::errc() || parsed != end || host.slots < 1 || host.slots > kMostSlots)
    throw ConfigError(
        bad_hosts(cat("\"", text.substr(colon + 1), "\" is no number of ranks of a host")));
  return host;
}

void divide(std::vector<Host>& hosts, int64_t ranks) {
  const auto count = static_cast<int64_t>(hosts.size());
  if (ranks % count != 0)
    throw ConfigError(bad_hosts(cat(ranks, " ranks are not divided by ", count, " hosts"))
                          .remedy("Say how many each takes."));
  for (Host& host : hosts) host.slots = ranks / count;
}

int64_t usable_slots(const Host& host, int64_t tp_size) {
  return host.slots >= tp_size ? host.slots / tp_size * tp_size : host.slots;
}

}  // namespace

std::vector<Host> parse_hosts(const std::string& text, int64_t ranks) {
  std::vector<Host> hosts;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) hosts.push_back(host_of(word));
  if (hosts.empty()) throw ConfigError(bad_hosts("no host is named"));
  for (size_t i = 0; i < hosts.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (hosts[i].name == hosts[j].name)
        throw ConfigError(bad_hosts(cat("\"", hosts[i].name, "\" stands twice")));
  const auto without =
      std::count_if(hosts.begin(), hosts.end(), [](const Host& host) { return host.slots == 0; });
  if (without == static_cast<int64_t>(hosts.size())) {
    divide(hosts, ranks);
  } else if (without > 0) {
    throw ConfigError(bad_hosts("some hosts have a number of ranks and some have none"));
  }
  int64_t slots = 0;
  for (const Host& host : hosts) slots += host.slots;
  if (slots < ranks)
    throw ConfigError(problem(cat("the hosts take ", slots, " ranks together"))
                          .at("--hosts")
                          .must(cat("take the ", ranks, " of -n")));
  return hosts;
}

int64_t whole_groups_on(const std::vector<Host>& hosts, int64_t tp_size) {
  int64_t ranks = 0;
  for (const Host& host : hosts) ranks += usable_slots(host, tp_size);
  return ranks;
}

std::vector<Host> share_out(const std::vector<Host>& hosts, int64_t ranks, int64_t tp_size) {
  // Where whole groups do not suffice, as when a group is larger than a host, every slot is used.
  const bool whole_groups = whole_groups_on(hosts, tp_size) >= ranks;
  std::vector<Host> shares;
  for (const Host& host : hosts) {
    const int64_t most = whole_groups ? usable_slots(host, tp_size) : host.slots;
    const int64_t share = std::min(most, ranks);
    ranks -= share;
    if (share > 0) shares.push_back({.name = host.name, .slots = share});
  }
  return shares;
}

std::string text_of(const std::vector<Host>& hosts) {
  std::vector<std::string> words;
  for (const Host& host : hosts) words.push_back(cat(host.name, ":", host.slots));
  return join(words, ",");
}

}  // namespace tptrain::launch
