// An instance of FlashAttention-3, compiled once for each head_dim and pass (they take minutes):
// TPTRAIN_FLASH3_FORWARD, _BACKWARD or _BACKWARD_OF_GROUPS is the head_dim.
#include <cmath>

#include "cuda_check.h"  // of FlashAttention-3: its checks end the process, ours throw
#include "kernels/cuda/flash3.h"
#undef CHECK_CUDA
#undef CHECK_CUTLASS
#define CHECK_CUDA(call)                                                     \
  do {                                                                       \
    const cudaError_t status_ = (call);                                      \
    if (status_ != cudaSuccess)                                              \
      ::tptrain::kernels::cuda::flash3_refused(cudaGetErrorString(status_)); \
  } while (0)
#define CHECK_CUTLASS(call)                                                               \
  do {                                                                                    \
    const cutlass::Status status_ = (call);                                               \
    if (status_ != cutlass::Status::kSuccess)                                             \
      ::tptrain::kernels::cuda::flash3_refused(cutlass::cutlassGetStatusString(status_)); \
  } while (0)

namespace tptrain::kernels::cuda {
[[noreturn]] void flash3_refused(const char* why);  // flash3.cpp
}

#ifdef TPTRAIN_FLASH3_FORWARD
#include "flash_fwd_launch_template.h"
#else
#include "flash_bwd_launch_template.h"
#endif

#include "kernels/cuda/flash3_instances.h"

namespace tptrain::kernels::cuda {

namespace {

using Value = cutlass::bfloat16_t;

/// What both passes take. The layout is the library's; its distances count elements.
template <typename Params>
void fill(Params& p, const Flash3& args) {
  const int64_t q_width = args.heads * args.head_dim;
  const int64_t kv_width = args.kv_heads * args.head_dim;
  const int64_t width = q_width + 2 * kv_width;
  auto* qkv = const_cast<Value*>(static_cast<const Value*>(args.qkv));
  p.q_ptr = qkv;
  p.k_ptr = qkv + q_width;
  p.v_ptr = qkv + q_width + kv_width;
  p.q_batch_stride = p.k_batch_stride = p.v_batch_stride = width;
  p.q_row_stride = p.k_row_stride = p.v_row_stride = args.batch * width;
  p.q_head_stride = p.k_head_stride = p.v_head_stride = args.head_dim;
  p.v_dim_stride = 1;
  p.o_ptr = args.context;
  p.o_batch_stride = q_width;
  p.o_row_stride = args.batch * q_width;
  p.o_head_stride = args.head_dim;
  p.softmax_lse_ptr = args.logsumexp;
  p.b = p.b_k = static_cast<int>(args.batch);
  p.h = static_cast<int>(args.heads);
  p.h_k = static_cast<int>(args.kv_heads);
  p.seqlen_q = p.seqlen_k = static_cast<int>(args.positions);
  p.seqlen_q_rounded = p.seqlen_k_rounded = static_cast<int>(args.filled_positions());
  p.total_q = p.total_k = static_cast<int>(args.positions * args.batch);
  p.d = p.dv = p.d_rounded = p.dv_rounded = static_cast<int>(args.head_dim);
  p.scale_softmax = static_cast<float>(1 / std::sqrt(static_cast<double>(args.head_dim)));
  p.is_bf16 = p.is_causal = true;
  p.window_size_left = static_cast<int>(args.positions - 1);
  p.window_size_right = 0;
  p.num_splits = 1;
  p.arch = 90;
  p.num_sm = args.multiprocessors;
}

}  // namespace

#ifdef TPTRAIN_FLASH3_FORWARD
template <>
void flash3_forward_of<TPTRAIN_FLASH3_FORWARD>(const Flash3& args, Stream stream) {
  constexpr int kDim = TPTRAIN_FLASH3_FORWARD;
  Flash_fwd_params p = {};
  fill(p, args);
  p.tile_count_semaphore = args.next_tile;
  run_flash_fwd</*Arch=*/90, kDim, kDim, /*ClusterM=*/1, Value, Value, /*Is_causal=*/true,
                /*Is_local=*/false, /*Has_softcap=*/false, /*Varlen=*/false,
                /*PagedKVNonTMA=*/false, /*AppendKV=*/false, /*HasQv=*/false, /*PackGQA=*/false,
                /*Split=*/false, /*V_colmajor=*/false>(p, static_cast<cudaStream_t>(stream));
}
#else

namespace {

/// The library's own tiles of causal attention: positions of queries and of keys, and how the warp
/// groups share them.
template <int kDim>
struct Tiles;
template <>
struct Tiles<64> {
  static constexpr int kQueries = 128, kAtomsOfGradQ = 2;
};
template <>
struct Tiles<128> {
  static constexpr int kQueries = 64, kAtomsOfGradQ = 1;
};
constexpr int kKeys = 128;

template <int kDim, bool kGroups>
void backward(const Flash3& args, Stream stream) {
  using T = Tiles<kDim>;
  static_assert(Flash3::kRows % T::kQueries == 0 && Flash3::kRows % kKeys == 0);
  Flash_bwd_params p = {};
  fill(p, args);
  const int64_t q_width = args.heads * args.head_dim;
  const int64_t kv_width = args.kv_heads * args.head_dim;
  auto* grad_qkv = static_cast<Value*>(args.grad_qkv);
  p.dq_ptr = grad_qkv;
  p.dk_ptr = grad_qkv + q_width;
  p.dv_ptr = grad_qkv + q_width + kv_width;
  p.dq_batch_stride = p.dk_batch_stride = p.dv_batch_stride = p.q_batch_stride;
  p.dq_row_stride = p.dk_row_stride = p.dv_row_stride = p.q_row_stride;
  p.dq_head_stride = p.dk_head_stride = p.dv_head_stride = p.q_head_stride;
  p.do_ptr = const_cast<void*>(args.grad_context);
  p.do_batch_stride = p.o_batch_stride;
  p.do_row_stride = p.o_row_stride;
  p.do_head_stride = p.o_head_stride;
  p.dq_accum_ptr = args.sum_q;
  p.dk_accum_ptr = args.sum_k;
  p.dv_accum_ptr = args.sum_v;
  p.softmax_lse_log2_ptr = args.rows[0];
  p.dsoftmax_sum = args.rows[1];
  run_flash_bwd</*Arch=*/90, kDim, T::kQueries, kKeys, Value, /*Is_causal=*/true,
                /*Is_local=*/false, /*Has_softcap=*/false, /*Varlen=*/false,
                /*Deterministic=*/false, kGroups, /*Stages_dO=*/2, /*Stages_dS=*/2,
                /*SdP_swapAB=*/true, /*dKV_swapAB=*/false, /*dQ_swapAB=*/false,
                /*NumMmaWarpGroups=*/2, /*AtomLayoutMSdP=*/1, /*AtomLayoutNdKV=*/2,
                T::kAtomsOfGradQ, /*V_in_regs=*/false>(p, static_cast<cudaStream_t>(stream));
}

}  // namespace

#ifdef TPTRAIN_FLASH3_BACKWARD
template <>
void flash3_backward_of<TPTRAIN_FLASH3_BACKWARD, false>(const Flash3& args, Stream stream) {
  backward<TPTRAIN_FLASH3_BACKWARD, false>(args, stream);
}
#else
template <>
void flash3_backward_of<TPTRAIN_FLASH3_BACKWARD_OF_GROUPS, true>(const Flash3& args,
                                                                 Stream stream) {
  backward<TPTRAIN_FLASH3_BACKWARD_OF_GROUPS, true>(args, stream);
}
#endif
#endif

}  // namespace tptrain::kernels::cuda
