// Causal attention on the CPU: how the blocked loops of cpu/attention.cpp are dealt to the threads.
// Always in fp32; bf16 is widened as a whole before and rounded after. A document is a sequence of
// its own to them.
#include <algorithm>
#include <numeric>

#include "kernels/attention_parts.h"
#include "kernels/cpu/loops.h"

namespace tptrain::kernels::attention {

namespace {

cpu::Attention loop_arguments(const at::Tensor& qkv, const AttentionShape& shape) {
  cpu::Attention args;
  args.positions = qkv.size(0);
  args.batch = qkv.size(1);
  args.heads = shape.heads;
  args.kv_heads = shape.kv_heads;
  args.head_dim = shape.head_dim;
  args.qkv = qkv.const_data_ptr<float>();
  return args;
}

/// The document of tokens [begin, end) as a sequence of its own.
cpu::Attention document_of(const cpu::Attention& all, int64_t begin, int64_t end) {
  cpu::Attention args = all;
  const int64_t qkv = begin * (all.heads + 2 * all.kv_heads) * all.head_dim;
  const int64_t context = begin * all.heads * all.head_dim;
  args.positions = end - begin;
  args.qkv += qkv;
  args.context += context;
  args.logsumexp += begin * all.heads;
  if (args.grad_context != nullptr) args.grad_context += context;
  if (args.grad_qkv != nullptr) args.grad_qkv += qkv;
  return args;
}

using Tasks = void (*)(const cpu::Attention& args, float* scratch, int64_t begin, int64_t end);
using Scratch = int64_t (*)(const cpu::Attention& args);

/// The sequences are alike: every thread takes as many tasks.
void run_sequences(const cpu::Attention& args, Tasks run, Scratch scratch_of) {
  const int64_t tasks = args.batch * args.kv_heads;
  const int64_t pieces = cpu::piece_count(tasks, 1);
  const int64_t scratch_size = scratch_of(args);
  const at::Tensor scratch = at::empty({pieces * scratch_size}, at::kFloat);
  float* scratch_data = scratch.data_ptr<float>();
  cpu::parallel_pieces(tasks, pieces, [&](int64_t piece, int64_t begin, int64_t end) {
    run(args, scratch_data + piece * scratch_size, begin, end);
  });
}

/// One kv head of one document.
struct DocumentTask {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t kv_head = 0;
};

/// Documents are of any length, and the longest costs the square of it: the longest first, each to
/// the thread that has least. Who computes a task changes no number.
void run_documents(const cpu::Attention& args, const Documents& documents, Tasks run,
                   Scratch scratch_of) {
  const int32_t* ends = documents.ends.const_data_ptr<int32_t>();
  std::vector<DocumentTask> tasks;
  for (int64_t i = 1; i < documents.ends.numel(); ++i) {
    if (ends[i] == ends[i - 1]) continue;
    for (int64_t kv_head = 0; kv_head < args.kv_heads; ++kv_head)
      tasks.push_back({ends[i - 1], ends[i], kv_head});
  }
  if (tasks.empty()) return;
  const auto length = [](const DocumentTask& task) { return task.end - task.begin; };
  std::ranges::stable_sort(tasks, std::greater<>(), length);

  const int64_t pieces = cpu::piece_count(static_cast<int64_t>(tasks.size()), 1);
  std::vector<std::vector<DocumentTask>> dealt(static_cast<size_t>(pieces));
  std::vector<int64_t> load(static_cast<size_t>(pieces), 0);
  for (const DocumentTask& task : tasks) {
    const auto least = std::ranges::min_element(load);
    dealt[static_cast<size_t>(least - load.begin())].push_back(task);
    constexpr int64_t kBlock = 128;  // keys that even a short document's queries are computed for
    *least += length(task) * (length(task) + kBlock);
  }

  const int64_t scratch_size = scratch_of(document_of(args, 0, length(tasks.front())));
  const at::Tensor scratch = at::empty({pieces * scratch_size}, at::kFloat);
  float* scratch_data = scratch.data_ptr<float>();
  cpu::parallel_pieces(pieces, pieces, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      for (const DocumentTask& task : dealt[static_cast<size_t>(piece)]) {
        run(document_of(args, task.begin, task.end), scratch_data + piece * scratch_size,
            task.kv_head, task.kv_head + 1);
      }
    }
  });
}

void run_all(const cpu::Attention& args, const Documents* documents, Tasks run,
             Scratch scratch_of) {
  if (documents != nullptr) {
    run_documents(args, *documents, run, scratch_of);
  } else {
    run_sequences(args, run, scratch_of);
  }
}

}  // namespace

AttentionResult loops_forward(const at::Tensor& packed, const AttentionShape& shape,
                              const Documents* documents) {
  const at::Tensor qkv = packed.to(at::kFloat);
  AttentionResult result{
      at::empty({qkv.size(0), qkv.size(1), shape.heads * shape.head_dim}, qkv.options()),
      at::empty({qkv.size(1), shape.heads, qkv.size(0)}, qkv.options())};
  cpu::Attention args = loop_arguments(qkv, shape);
  args.context = result.context.data_ptr<float>();
  args.logsumexp = result.logsumexp.data_ptr<float>();
  run_all(args, documents, cpu::attention_tasks, cpu::attention_scratch);
  result.context = result.context.to(packed.scalar_type());
  return result;
}

at::Tensor loops_backward(const at::Tensor& packed_grad, const at::Tensor& packed,
                          const AttentionResult& forward, const AttentionShape& shape,
                          const Documents* documents) {
  const at::Tensor qkv = packed.to(at::kFloat);
  const at::Tensor context = forward.context.to(at::kFloat);
  const at::Tensor grad_context = packed_grad.to(at::kFloat);
  at::Tensor grad_qkv = at::empty_like(qkv);
  cpu::Attention args = loop_arguments(qkv, shape);
  args.context = const_cast<float*>(context.const_data_ptr<float>());  // backward only reads it
  args.logsumexp = const_cast<float*>(forward.logsumexp.const_data_ptr<float>());  // and this
  args.grad_context = grad_context.const_data_ptr<float>();
  args.grad_qkv = grad_qkv.data_ptr<float>();
  run_all(args, documents, cpu::attention_backward_tasks, cpu::attention_backward_scratch);
  return grad_qkv.to(packed.scalar_type());
}

}  // namespace tptrain::kernels::attention
