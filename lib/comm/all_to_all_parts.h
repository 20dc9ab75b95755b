// Where the parts of an all_to_all lie on one rank, by its counts. Internal to comm.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace tptrain::comm {

struct AllToAllParts {
  // Of each other rank, in elements:
  std::vector<int64_t> sent, send_begin;
  std::vector<int64_t> received, receive_begin;
  int64_t largest = 0;  // of the parts of all ranks

  AllToAllParts(std::span<const int64_t> counts, int rank, int size) {
    int64_t next_sent = 0, next_received = 0;
    for (int r = 0; r < size; ++r) {
      sent.push_back(counts[static_cast<size_t>(rank * size + r)]);
      received.push_back(counts[static_cast<size_t>(r * size + rank)]);
      send_begin.push_back(next_sent);
      receive_begin.push_back(next_received);
      next_sent += sent.back();
      next_received += received.back();
    }
    for (const int64_t count : counts) largest = std::max(largest, count);
  }
};

}  // namespace tptrain::comm
