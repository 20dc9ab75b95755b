// Small blocking messages between ranks on the host, free of torch: statuses, texts, counts. The
// tensors' way is communicator.h. Collective: every rank of the group calls the same functions in
// the same order.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/interruption.h"
#include "base/progress_board.h"

namespace tptrain::comm {

class ControlGroup {
 public:
  virtual ~ControlGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual void barrier() = 0;
  /// Every rank returns root's bytes.
  virtual std::string broadcast(const std::string& bytes, int root) = 0;
  /// Bytes of every rank, in rank order, on every rank.
  virtual std::vector<std::string> all_gather(const std::string& bytes) = 0;
  virtual int64_t sum(int64_t value) = 0;
  virtual int64_t max(int64_t value) = 0;
  /// all_gather where ranks may come long after one another: while this one waits, the word of
  /// another that it is still working counts as progress on the board, and a stop that is requested
  /// of one rank reaches all.
  virtual std::vector<std::string> gather_from_work(const std::string& bytes) {
    return all_gather(bytes);
  }
  /// Tells those who wait in gather_from_work that this rank is still at it, and hears of a stop.
  virtual void still_working() {}
  /// Where this rank writes what it does; null: nowhere. It outlives the group.
  virtual ProgressBoard* board() { return nullptr; }
};

/// The group of one rank: for tools and tests without MPI.
class SingleRank final : public ControlGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void barrier() override {}
  std::string broadcast(const std::string& bytes, int) override { return bytes; }
  std::vector<std::string> all_gather(const std::string& bytes) override { return {bytes}; }
  int64_t sum(int64_t value) override { return value; }
  int64_t max(int64_t value) override { return value; }
};

/// Runs `work` on every rank and exchanges the outcomes: returns where all succeeded, else throws
/// on every rank the same agreed() Error: the one of the lowest failing rank, with "[rank r]" where
/// not all ranks failed alike. So no rank is left waiting in a collective that another never
/// reaches. What is thrown is an Error with the code and the message, no longer of its subclass.
/// `work` itself must not communicate, or must fail on every rank alike. It may take as long as it
/// likes where it passes interruption points: by them the others hear that it goes on. `on_stop`:
/// whether a stop requested of any rank ends it at one of them, which every rank gets as an agreed
/// error of ExitCode::stopped; so does a stop that came before.
void agree(ControlGroup& group, const std::function<void()>& work, OnStop on_stop = OnStop::finish);

}  // namespace tptrain::comm
