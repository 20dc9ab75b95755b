// The most that activations take at once on one rank: forward and backward of a micro-batch run
// through a Timeline, statement by statement as model/decoder.cpp and model/decoder_layer.cpp have
// them. A change of what those keep or free is a change here; tests hold both together. Temporary
// tensors are those of the CPU's or of the GPU's kernels; cuBLAS' and NCCL's workspaces come on
// top.
#pragma once

#include <cstdint>

#include "comm/device_mesh.h"
#include "model/decoder.h"
#include "model/decoder_config.h"

namespace tptrain::planner {

enum class Device { cpu, cuda };

struct ActivationOptions {
  Device device = Device::cpu;
  int tp_rank = 0;
  int tp_size = 1;
  int dp_size = 1;
  int64_t seq_length = 512;
  int64_t micro_batch_size = 1;
  bool document_mask = false;  // the micro-batch travels as one sequence
  bool bf16 = false;
  model::TrainingOptions training = {};
  int first_training_block = 0;  // of the decoder's: those before it are only run forward
  comm::AxisCopies copies = {};  // between GPUs
  int64_t cpu_threads = 1;       // attention's scratch is one for each thread
};

/// Bytes, the micro-batch's ids and targets and the rotary table included. The peak lies behind
/// whatever parameters, gradients and slots take: those stand all the time.
int64_t peak_activation_bytes(const model::DecoderConfig& config, const ActivationOptions& options);

/// Bytes of the blocks through which the GPUs of both axes push to each other
/// (comm/peer_exchange.h), which stand all the time; 0 where nothing is pushed.
int64_t push_buffer_bytes(const model::DecoderConfig& config, const ActivationOptions& options);

}  // namespace tptrain::planner
