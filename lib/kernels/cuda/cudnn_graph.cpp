#include "kernels/cuda/cudnn_graph.h"

#include <ATen/cudnn/Handle.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cudnn_frontend.h>

#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::kernels::cuda {

namespace {

namespace fe = cudnn_frontend;
using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

/// Ids of a graph's tensors, by which a run finds their memory.
enum Id : int64_t {
  kQ = 1,
  kK,
  kV,
  kContext,
  kLogsumexp,
  kGradContext,
  kGradQ,
  kGradK,
  kGradV,
  kLengths,
  kInQkv,
  kInKv,
  kInContext,
  kInLogsumexp
};

/// Refused, in cuDNN's words.
struct Refusal {
  std::string words;
};
void accept(fe::error_t error) {
  if (error.is_bad()) throw Refusal{error.get_message()};
}

/// Declares tensors of one graph.
class Declaration {
 public:
  explicit Declaration(const CudnnAttention& attention)
      : a_(attention), graph_(std::make_unique<fe::graph::Graph>()) {
    graph_->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (a_.tokens == 0) return;
    lengths_ = index(kLengths, a_.batch);
    in_qkv_ = index(kInQkv, a_.batch + 1);
    in_context_ = index(kInContext, a_.batch + 1);
    in_logsumexp_ = index(kInLogsumexp, a_.batch + 1);
  }

  /// [batch, heads, positions, head_dim], rows of `width` elements apart.
  Tensor heads(Id id, int64_t heads, int64_t width, const Tensor& documents) {
    Tensor tensor = graph_->tensor(fe::graph::Tensor_attributes().set_uid(id));
    place(tensor, heads, width, documents);
    return tensor;
  }
  void place(const Tensor& tensor, int64_t heads, int64_t width, const Tensor& documents) const {
    const bool sequences = a_.tokens == 0;
    tensor->set_dim({a_.batch, heads, a_.positions, a_.head_dim})
        .set_stride({sequences ? width : a_.positions * width, a_.head_dim,
                     sequences ? a_.batch * width : width, 1});
    if (!sequences) tensor->set_ragged_offset(documents);
  }
  Tensor q() { return heads(kQ, a_.heads, a_.qkv_width(), in_qkv_); }
  Tensor in_qkv() const { return in_qkv_; }
  Tensor context(Id id) { return heads(id, a_.heads, a_.context_width(), in_context_); }
  void place_context(const Tensor& tensor) const {
    place(tensor, a_.heads, a_.context_width(), in_context_);
  }
  void place_logsumexp(const Tensor& tensor) const {
    const bool sequences = a_.tokens == 0;
    tensor->set_data_type(fe::DataType_t::FLOAT)
        .set_dim({a_.batch, a_.heads, a_.positions, 1})
        .set_stride(
            {a_.heads * a_.positions, sequences ? a_.positions : 1, sequences ? 1 : a_.heads, 1});
    if (!sequences) tensor->set_ragged_offset(in_logsumexp_);
  }
  Tensor index(Id id, int64_t entries) {
    return graph_->tensor(fe::graph::Tensor_attributes()
                              .set_uid(id)
                              .set_dim({entries, 1, 1, 1})
                              .set_stride({1, 1, 1, 1})
                              .set_data_type(fe::DataType_t::INT32));
  }
  template <typename Attributes>
  Attributes attention(Attributes attributes) const {
    attributes.set_attn_scale(1.0f / std::sqrt(static_cast<float>(a_.head_dim)))
        .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
    if (a_.tokens > 0)
      attributes.set_padding_mask(true).set_seq_len_q(lengths_).set_seq_len_kv(lengths_);
    return attributes;
  }

  fe::graph::Graph& graph() { return *graph_; }
  std::unique_ptr<fe::graph::Graph> built() {
    const cudnnHandle_t handle = at::native::getCudnnHandle();
    accept(graph_->validate());
    accept(graph_->build_operation_graph(handle));
    accept(graph_->create_execution_plans({fe::HeurMode_t::A}));
    accept(graph_->check_support());
    accept(graph_->build_plans());
    return std::move(graph_);
  }

 private:
  const CudnnAttention& a_;
  std::unique_ptr<fe::graph::Graph> graph_;
  Tensor lengths_, in_qkv_, in_context_, in_logsumexp_;
};

class Graph : public CudnnGraph {
 public:
  Graph(std::unique_ptr<fe::graph::Graph> graph, std::vector<Id> ids)
      : graph_(std::move(graph)), ids_(std::move(ids)) {
    accept(graph_->get_workspace_size(workspace_bytes_));
  }
  int64_t workspace_bytes() const override { return workspace_bytes_; }
  void run(const CudnnTensors& tensors, void* workspace) const override {
    std::unordered_map<int64_t, void*> memory;
    for (const Id id : ids_) memory.emplace(id, memory_of(id, tensors));
    fe::error_t error = graph_->execute(at::native::getCudnnHandle(), memory, workspace);
    if (error.is_bad())
      throw InternalError(problem(cat("cuDNN's attention failed: ", error.get_message())));
  }

 private:
  static void* memory_of(Id id, const CudnnTensors& t) {
    const auto read = [](const void* data) { return const_cast<void*>(data); };
    switch (id) {
      case kQ:
        return read(t.q);
      case kK:
        return read(t.k);
      case kV:
        return read(t.v);
      case kContext:
        return t.context;
      case kLogsumexp:
        return t.logsumexp;
      case kGradContext:
        return read(t.grad_context);
      case kGradQ:
        return t.grad_q;
      case kGradK:
        return t.grad_k;
      case kGradV:
        return t.grad_v;
      case kLengths:
        return read(t.documents.lengths);
      case kInQkv:
        return read(t.documents.in_qkv);
      case kInKv:
        return read(t.documents.in_kv);
      case kInContext:
        return read(t.documents.in_context);
      case kInLogsumexp:
        return read(t.documents.in_logsumexp);
    }
    return nullptr;
  }

  std::unique_ptr<fe::graph::Graph> graph_;
  std::vector<Id> ids_;
  int64_t workspace_bytes_ = 0;
};

std::vector<Id> ids_of(const CudnnAttention& a, std::vector<Id> ids) {
  if (a.tokens > 0) ids.insert(ids.end(), {kLengths, kInQkv, kInContext, kInLogsumexp});
  return ids;
}

std::unique_ptr<CudnnGraph> forward_graph(const CudnnAttention& a) {
  Declaration declare(a);
  const Tensor q = declare.q();
  const Tensor k = declare.heads(kK, a.kv_heads, a.qkv_width(), declare.in_qkv());
  const Tensor v = declare.heads(kV, a.kv_heads, a.qkv_width(), declare.in_qkv());
  const auto [context, logsumexp] = declare.graph().sdpa(
      q, k, v, declare.attention(fe::graph::SDPA_attributes().set_generate_stats(true)));
  context->set_output(true).set_uid(kContext);
  declare.place_context(context);
  logsumexp->set_output(true).set_uid(kLogsumexp);
  declare.place_logsumexp(logsumexp);
  return std::make_unique<Graph>(declare.built(), ids_of(a, {kQ, kK, kV, kContext, kLogsumexp}));
}

std::unique_ptr<CudnnGraph> backward_graph(const CudnnAttention& a) {
  Declaration declare(a);
  const int64_t kv_row = a.kv_apart() ? a.kv_width() : a.qkv_width();
  const Tensor in_kv = a.kv_apart() ? declare.index(kInKv, a.batch + 1) : declare.in_qkv();
  const Tensor q = declare.q();
  const Tensor k = declare.heads(kK, a.kv_heads, kv_row, in_kv);
  const Tensor v = declare.heads(kV, a.kv_heads, kv_row, in_kv);
  const Tensor context = declare.context(kContext), grad = declare.context(kGradContext);
  const Tensor logsumexp =
      declare.graph().tensor(fe::graph::Tensor_attributes().set_uid(kLogsumexp));
  declare.place_logsumexp(logsumexp);
  fe::graph::SDPA_backward_attributes attributes =
      declare.attention(fe::graph::SDPA_backward_attributes());
  // Else its memory would be that of as many of the longest document as there are documents.
  if (a.tokens > 0) attributes.set_max_total_seq_len_q(a.tokens).set_max_total_seq_len_kv(a.tokens);
  const std::array<Tensor, 3> gradient =
      declare.graph().sdpa_backward(q, k, v, context, grad, logsumexp, attributes);
  gradient[0]->set_output(true).set_uid(kGradQ);
  declare.place(gradient[0], a.heads, a.qkv_width(), declare.in_qkv());
  gradient[1]->set_output(true).set_uid(kGradK);
  declare.place(gradient[1], a.kv_heads, kv_row, in_kv);
  gradient[2]->set_output(true).set_uid(kGradV);
  declare.place(gradient[2], a.kv_heads, kv_row, in_kv);
  std::vector<Id> ids =
      ids_of(a, {kQ, kK, kV, kContext, kLogsumexp, kGradContext, kGradQ, kGradK, kGradV});
  if (a.kv_apart()) ids.push_back(kInKv);
  return std::make_unique<Graph>(declare.built(), std::move(ids));
}

}  // namespace

bool has_cudnn_graphs() { return true; }

const CudnnAnswer& cudnn_graph(const CudnnAttention& attention, CudnnPass pass) {
  using Key = std::tuple<c10::DeviceIndex, CudnnAttention, CudnnPass>;
  static std::mutex mutex;
  // Never destroyed: at the end of the process CUDA may go before it.
  static auto& found = *new std::map<Key, CudnnAnswer>();
  const std::lock_guard lock(mutex);
  const auto [at, fresh] = found.try_emplace({c10::cuda::current_device(), attention, pass});
  CudnnAnswer& answer = at->second;
  if (!fresh) return answer;
  try {
    answer.graph =
        (pass == CudnnPass::forward ? forward_graph(attention) : backward_graph(attention))
            .release();
  } catch (const Refusal& refusal) {
    answer.refusal = refusal.words;
  }
  return answer;
}

}  // namespace tptrain::kernels::cuda
