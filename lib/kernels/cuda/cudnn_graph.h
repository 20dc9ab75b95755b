// Causal attention by cuDNN's graph interface, for what LibTorch's calls of the same engines cannot
// do: gradients written where they belong in the packed buffer, and documents. Pointers and sizes;
// which call takes it, and what memory it needs, is decided in ../attention_cudnn.cpp.
//
// One of two implements it: cudnn_graph.cpp where the headers were at hand when the program was
// built (third_party/cudnn_frontend.cmake), else cudnn_graph_absent.cpp, which serves nothing.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

namespace tptrain::kernels::cuda {

/// Whether this program was built with it.
bool has_cudnn_graphs();

/// What a graph is built for: bf16, scale 1/sqrt(head_dim). Sequences are [positions, batch, ..];
/// documents lie end to end, [tokens, ..], and which they are is read on the device: a captured
/// graph replays with what is there then.
struct CudnnAttention {
  int64_t positions = 0;  // of a sequence; the most that a document may have
  int64_t batch = 0;      // sequences, or documents, empty ones among them
  int64_t tokens = 0;     // of all documents; 0: sequences
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  auto operator<=>(const CudnnAttention&) const = default;

  int64_t qkv_width() const { return (heads + 2 * kv_heads) * head_dim; }
  int64_t context_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
  /// In backward k, v and their gradients are buffers of their own, [tokens, kv_width]. Of
  /// documents in groups cuDNN keeps the gradients of k and v for each query head, with rows that
  /// are as many times as long as those of k and v: in the packed buffer that would be a multiple
  /// of its size.
  bool kv_apart() const { return tokens > 0 && heads != kv_heads; }

  /// What backward takes beside its result, by formula, for forecasts where there is no graph to
  /// ask: the engine's workspace (a gradient of q in fp32; a number a row and head, of heads that
  /// are not in groups two; else the gradients of k and v of each query head) and what is apart.
  /// Of documents the first has the rows of the packed buffer, and there is room for the others in
  /// fp32: at least what is taken. (unit_planner_gpu, gpu_kernels_other_cards.)
  int64_t backward_bytes() const {
    constexpr int64_t kFp32 = 4, kBf16 = 2;
    const bool grouped = heads != kv_heads;
    const int64_t of_query_heads = grouped ? 2 * context_width() : 0;
    if (tokens == 0)
      return positions * batch *
             ((context_width() + (grouped ? 1 : 2) * heads) * kFp32 + of_query_heads * kBf16);
    const int64_t apart = kv_apart() ? 2 * 2 * kv_width() : 0;  // k, v and their gradients
    return tokens * ((qkv_width() + heads + of_query_heads) * kFp32 + apart * kBf16);
  }
};

/// int32, filled on the device. The engines take the rows of a gradient from those of what it is
/// the gradient of: each pair lies alike.
struct CudnnDocuments {
  const int32_t* lengths = nullptr;  // [batch]
  // Of each document and of the end: its first element. [batch + 1]
  const int32_t* in_qkv = nullptr;
  const int32_t* in_kv = nullptr;  // where kv_apart()
  const int32_t* in_context = nullptr;
  const int32_t* in_logsumexp = nullptr;
};
struct CudnnTensors {
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  void* context = nullptr;
  float* logsumexp = nullptr;  // [batch, heads, positions]; of documents [tokens, heads]
  CudnnDocuments documents = {};
  // Backward alone.
  const void* grad_context = nullptr;
  void* grad_q = nullptr;
  void* grad_k = nullptr;
  void* grad_v = nullptr;
};

/// For the current device, and kept with it while the process lives.
class CudnnGraph {
 public:
  virtual ~CudnnGraph() = default;
  virtual int64_t workspace_bytes() const = 0;
  /// On the current stream. Throws InternalError with cuDNN's words.
  virtual void run(const CudnnTensors& tensors, void* workspace) const = 0;
};
enum class CudnnPass { forward, backward };
struct CudnnAnswer {
  const CudnnGraph* graph = nullptr;
  std::string refusal;  // why there is none: cuDNN's words
};
/// The first call of a shape builds it (0.2 s), which must not be while a stream is captured.
const CudnnAnswer& cudnn_graph(const CudnnAttention& attention, CudnnPass pass);

}  // namespace tptrain::kernels::cuda
