// A layer's forward and backward, statement by statement as model/decoder_layer.cpp has them.
#pragma once

#include <array>

#include "model/layer_tensors.h"
#include "planner/attention_activations.h"

namespace tptrain::planner {

/// An operand in FP8, one byte an element.
struct Cast {
  Buffer rows, columns;
};
/// What model/layer_tensors.h declares.
struct Kept {
  bool fp8 = false;  // the layer's linears
  Stream input;
  std::array<Buffer, model::kLayerTensors> tensors;
  Buffer& operator[](model::LayerTensor tensor) { return tensors[static_cast<size_t>(tensor)]; }
};

class LayerActivations {
 public:
  LayerActivations(const ActivationOptions& options, const Sizes& sizes, ActivationTensors& make,
                   Timeline& timeline)
      : options_(options),
        s_(sizes),
        make_(make),
        attention_(options, sizes, make, timeline),
        t_(timeline) {}

  /// kept.fp8 says how the layer multiplies; the rest of it is filled.
  Stream forward(Stream stream, Kept& kept);
  Buffer backward(Buffer grad, Kept kept);

 private:
  using enum model::LayerTensor;

  void accumulate_weight_gradient(bool fp8, int64_t out, int64_t in);
  /// Of an adapter: what it makes of an input of `in` columns, or of its output's gradient.
  Buffer adapter_down(model::LayerTensor tensor, int64_t in);
  Buffer adapter_grad_down(int64_t columns, int64_t in);
  void weight_gradient(bool fp8, int64_t out, int64_t in,
                       const model::LayerSizes::Adapter& adapter);
  void fp8_product(int64_t m, int64_t n, int64_t k);
  bool stays(bool fp8, model::LayerTensor tensor) const;
  Buffer byte_matrix(bool made, int64_t width);
  Cast cast(bool fp8, int64_t width, bool rows, bool columns);
  Buffer columns_of(bool fp8, model::LayerTensor tensor);
  Cast cast_gathered_gradient(bool fp8);
  void turn_gathered_gradient(bool fp8, Cast& cast);
  Cast cast_for_forward(bool fp8, model::LayerTensor columns);
  Buffer cast_for_backward(Cast cast, Buffer& input);
  Kept activations(Stream stream, bool fp8);
  Buffer mlp_backward(const Buffer& grad, Kept& kept);
  Buffer attention_backward(const Buffer& grad, Kept& kept);

  const ActivationOptions& options_;
  const Sizes& s_;
  ActivationTensors& make_;
  AttentionActivations attention_;
  Timeline& t_;
};

}  // namespace tptrain::planner
