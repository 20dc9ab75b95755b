// Tensors pushed between the GPUs of one host by their copy engines, beside the kernels of the
// compute stream: each rank opens a block of device memory to the others (CUDA IPC), a push is a
// copy into the peer's block, and two flags a pair of ranks and slot say whose turn it is. No
// multiprocessor waits and no host does; every call can be captured in a CUDA graph.
//
//   flag        lies at    set to 1 by                      set to 0 by
//   full        reader     writer, behind its copy          reader, once it has waited for it
//   empty       writer     reader, when it has read         writer, once it has waited for it
//
// Each flag thus returns to where it was once a push is consumed, so a captured sequence may be
// replayed as often as it likes, mixed with calls that are not captured: nobody overwrites what was
// not read, nobody reads what was not written, whoever is late.
//
// Blocks are cudaMalloc's own, outside the caching allocator, and stay until the exchange is
// destroyed: a captured graph may hold their addresses.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "comm/control.h"
#include "comm/peer_trial.h"

namespace tptrain::comm {

class PeerExchange {
 public:
  virtual ~PeerExchange() = default;
  /// As Communicator's functions of the same name. The first use of a size that no earlier one had
  /// makes new blocks: collective on the host, and refused (CommError) while a graph is captured.
  virtual std::unique_ptr<PiecewiseGather> gather_in_pieces(const at::Tensor& input) = 0;
  virtual std::unique_ptr<PiecewiseReduce> reduce_in_pieces(at::IntArrayRef piece,
                                                            const at::TensorOptions& options) = 0;
  // Whole collectives: false or null, and nothing done, where the tensors do not fit. Small ones
  // that the compute stream waits for go in one kernel each (cuda/direct.h): with a dozen of them a
  // layer it is the time between kernels that counts, of which pushes have more. Those that are
  // started go by copy engines (cuda/pushed_collectives.h): no multiprocessor waits for a rank that
  // is late. The first of these is as the first use of a size above.
  virtual bool all_gather(at::Tensor& output, const at::Tensor& input) = 0;
  virtual bool reduce_scatter(at::Tensor& output, const at::Tensor& input) = 0;  // sum
  virtual std::unique_ptr<Work> start_all_gather(at::Tensor& output, const at::Tensor& input) = 0;
  virtual std::unique_ptr<Work> start_reduce_scatter(at::Tensor& output,
                                                     const at::Tensor& input) = 0;
  virtual bool all_reduce(at::Tensor& tensor, ReduceOp op) = 0;
};

/// The largest whole tensor of a direct call. Measured was one of 0.9 MB; where copy engines are as
/// fast was not looked for.
inline constexpr int64_t kMostDirectBytes = int64_t{1} << 22;
/// Slots of a size: two gathers alive and one being filled; a sum being made and one being read.
inline constexpr int kGatherSlots = 3;
inline constexpr int kReduceSlots = 2;
/// Lanes of started collectives: one pushes while another sums and a third gives its slot back. A
/// slot holds what a chunk brings of every rank.
inline constexpr int kPushLanes = 3;
inline constexpr int64_t kPushSlotBytes = int64_t{1} << 26;

/// Between which GPUs direct copies are taken: over PCIe they are slower than products hide, and
/// more often broken.
enum class PeerLinks { nvlink, any };

struct PeerExchangeResult {
  std::unique_ptr<PeerExchange> exchange;  // null: not possible here
  std::string why_not;
  bool faulty =
      false;  // the GPUs say that they can, and a trial (peer_trial.h) says that they cannot
};
/// Stands between the trial and the GPUs: the way to try what becomes of a faulty one.
using WrapProbe = std::function<std::unique_ptr<PeerProbe>(std::unique_ptr<PeerProbe>)>;
/// Over the ranks of `group`, which must outlive it; `device` is this process's. Every pair is
/// tried before it is believed. Collective: all ranks get one, or none.
PeerExchangeResult peer_exchange(ControlGroup& group, const std::string& axis, at::Device device,
                                 PeerLinks links = PeerLinks::nvlink, const WrapProbe& wrap = {});

}  // namespace tptrain::comm
