// The hosts of a run as the user names them, and which of them take how many ranks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tptrain::launch {

struct Host {
  std::string name;
  int64_t slots = 0;  // ranks that it takes

  bool operator==(const Host&) const = default;
};

/// "node1:4,node2:4"; without numbers each host takes an equal part of `ranks`. Throws ConfigError
/// (at --hosts) where that is not possible, a host stands twice, or they take fewer than `ranks`.
std::vector<Host> parse_hosts(const std::string& text, int64_t ranks);

/// How many ranks the hosts take together without a tp group that goes over several, where each
/// host has room for one.
int64_t whole_groups_on(const std::vector<Host>& hosts, int64_t tp_size);

/// `ranks` over them, each as full as it goes, in their order; hosts that get none are left out.
std::vector<Host> share_out(const std::vector<Host>& hosts, int64_t ranks, int64_t tp_size);

/// "node1:4,node2:4"
std::string text_of(const std::vector<Host>& hosts);

}  // namespace tptrain::launch
