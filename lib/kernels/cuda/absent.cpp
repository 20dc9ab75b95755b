// A build without CUDA: the ATen composition serves what would come here.
#include "base/error.h"
#include "kernels/cuda/attention_race.h"
#include "kernels/cuda/documents.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/nf4.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/swiglu_product.h"
#include "kernels/cuda/weight_gradient.h"

namespace tptrain::kernels::cuda {

namespace {

[[noreturn]] void absent() {
  throw InternalError(problem("a CUDA kernel was asked for in a build without CUDA"));
}

}  // namespace

bool built() { return false; }
Stream stream_of(const at::Tensor&) { absent(); }
Properties properties() { absent(); }
std::optional<FusedAttention> chosen_attention() { absent(); }
std::optional<FusedAttention> known_attention() { absent(); }
FusedAttention faster_attention(const AttentionKey&, const at::Tensor&,
                                const std::vector<FusedAttention>&,
                                const std::function<void(FusedAttention)>&) {
  absent();
}
bool takes_product(const Product&) { return false; }
void multiply(const Product&, const ByAten&) { absent(); }
void multiply_fp8(const Product&) { absent(); }
bool multiplies_fp8(int) { absent(); }
int64_t squares_of_gradient(int64_t, int64_t) { absent(); }
bool fills_device_with_gradient(int64_t, int64_t) { absent(); }
bool takes_weight_gradient(const WeightGradient&) { absent(); }
void weight_gradient(const WeightGradient&, Stream) { absent(); }
void fp8_turn(const Fp8Turn&, Stream) { absent(); }
void amax_of(const void*, int64_t, uint32_t*, Stream) { absent(); }
void fp8_cast(const Fp8Cast&, Stream) { absent(); }
void nf4_values(const Nf4&, Element, void*, Stream) { absent(); }
void check_launch(const char*) { absent(); }
void norm_forward(const NormForward&, Stream) { absent(); }
void norm_again(const NormForward&, Stream) { absent(); }
int64_t norm_backward_blocks(int64_t) { absent(); }
bool norm_backward(const NormBackward&, Stream) { absent(); }
bool takes_head_norm(const HeadNorm&) { absent(); }
void head_norm(const HeadNorm&, Stream) { absent(); }
int64_t head_norm_backward_blocks(int64_t, int64_t) { absent(); }
void head_norm_backward(const HeadNorm&, Stream) { absent(); }
void swiglu(Element, const void*, void*, uint32_t*, int64_t, int64_t, Stream) { absent(); }
void swiglu_backward(Element, const void*, const void*, void*, uint32_t*, int64_t, int64_t,
                     Stream) {
  absent();
}
bool takes_swiglu_product(const SwigluProduct&) { absent(); }
void swiglu_product(const SwigluProduct&, Stream) { absent(); }
void swiglu_backward_product(const SwigluProduct&, Stream) { absent(); }
void gelu_tanh(Element, const void*, void*, int64_t, Stream) { absent(); }
void gelu_tanh_backward(Element, const void*, const void*, void*, int64_t, Stream) { absent(); }
void rotate(const Rotary&, Stream) { absent(); }
void dropout(const DropoutRows&, Stream) { absent(); }
void pack_heads(const PackHeads&, Stream) { absent(); }
void document_rows(const DocumentRows&, Stream) { absent(); }
void vocab_statistics(const Vocab&, Stream) { absent(); }
void vocab_rescale(const Vocab&, Stream) { absent(); }
void vocab_backward(const Vocab&, Stream) { absent(); }
bool takes_vocab_both(const Vocab&) { absent(); }
void vocab_both(const Vocab&, Stream) { absent(); }
int64_t cross_entropy_blocks(int64_t) { absent(); }
void cross_entropy_sums(const CrossEntropySums&, Stream) { absent(); }
void embedding_rows(const EmbeddingRows&, Stream) { absent(); }
int64_t embedding_chunks(int64_t) { absent(); }
void embedding_gradient(const EmbeddingGradient&, Stream) { absent(); }
int64_t column_sum_blocks(int64_t, int64_t) { absent(); }
void add_column_sums(const ColumnSums&, Stream) { absent(); }

}  // namespace tptrain::kernels::cuda
