// A low-rank adapter beside a linear that does not train: y = x W^T + scale * (x A^T) B^T, all of
// it in front of the linear's reduction, so that no collective comes on top. The adapter's term is
// written first and the base's product added to it, since a product reads what it adds to while it
// multiplies: added the other way round, the adapter's would be a pass of its own over the output.
//
//   base             A                              B
//   column-parallel  whole on every rank, partial   cut by output features, like the base
//                    gradient (of its outputs)
//   row-parallel     cut by input features, like    whole on every rank, partial gradient (of its
//                    the base                       inputs); its terms ride on the base's sum
//
// A base that packs several linears of one input (q, k, v) has an adapter of each: their As are one
// matrix, so that x is read once (with dropout once for each, since each drops its own elements).
// The scale is applied where the products are narrowest: to x A^T in forward, to dy B in backward.
// Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, section 4.1; the
// scale of rslora: Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA",
// 2023.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "parameters/parameter.h"
#include "tensor_parallel/linear_state.h"
#include "tensor_parallel/partition.h"

namespace tptrain::tensor_parallel {

/// What all adapters of a model share.
struct LowRank {
  int64_t rank = 0;    // 0: there are none
  double scale = 1.0;  // alpha / rank, or alpha / sqrt(rank)
};

class LowRankAdapter {
 public:
  /// A linear of ours, as its base has it.
  struct Output {
    std::string name;      // "model.layers.0.self_attn.q_proj"; B's tensor adds ".lora_B.weight"
    int64_t features = 0;  // over all tp ranks
    Range local = {};      // this rank's
    bool owned = true;
    parameters::TpCopies copies = {};
  };
  /// One A and its B: of one linear, or of several that are one in the model's files, side by side.
  struct Site {
    std::string name;  // "model.layers.0.self_attn.q_proj"; A's tensor adds ".lora_A.weight"
    std::vector<Output> outputs;
    int64_t first_column = 0;  // of this rank's outputs in the base's
  };
  struct Options {
    std::string name;  // of the packed A in messages: "model.layers.0.self_attn.qkv_proj"
    std::vector<Site> sites;
    int64_t in_features = 0;
    Range local_in = {};    // of a row-parallel base: this rank's; else all
    int64_t local_out = 0;  // of the base: sites' columns and others
    LowRank low_rank = {};
  };
  LowRankAdapter(const Options& options, const comm::Communicator& tp);

  /// Room for what forward makes of as many rows as `like` [positions, B, ..] has: [positions, B,
  /// R], R = sites * rank.
  at::Tensor empty_down(const at::Tensor& like) const;
  /// down [n, B, R] = scale * x A^T; y [n, B, the base's outputs] = bias + down B^T, bias alone
  /// where no site's columns are: what the base's product is to be added to. x [n, B, local in]:
  /// the rows from position `first` on; `bias` [outputs], undefined: none.
  void forward(const at::Tensor& y, const at::Tensor& down, const at::Tensor& x,
               const at::Tensor& bias, int64_t first, const kernels::Dropout& dropout) const;
  /// down alone, of all rows.
  at::Tensor down_of(const at::Tensor& x, const kernels::Dropout& dropout) const;
  /// grad_down [n, B, R] = scale * dy B; grad_input [n, B, local in] = grad_down A: what the base's
  /// product is to be added to, before any sum over tp.
  void input_gradient(const at::Tensor& grad_input, const at::Tensor& grad_down,
                      const at::Tensor& grad_output, int64_t first,
                      const kernels::Dropout& dropout) const;
  /// grad_down alone, of all rows: where nobody wants the gradient of x.
  at::Tensor grad_down_of(const at::Tensor& grad_output) const;
  /// Adds the gradients of A and B, of all rows.
  void weight_gradient(const at::Tensor& grad_output, const at::Tensor& x, const at::Tensor& down,
                       const at::Tensor& grad_down, const kernels::Dropout& dropout);

  /// A, then each site's B.
  std::vector<parameters::Parameter*> parameters();

 private:
  struct Up {
    parameters::Parameter weight;  // B: [local features, rank]
    std::string site;              // Site::name
    int64_t first_column = 0;
  };
  /// Sites that see the same x: all, or, with dropout, one.
  struct Seen {
    at::Tensor x;                     // [T, local in]
    int64_t first_row = 0, rows = 0;  // of A
  };
  void declare_down(const Options& options, const comm::Communicator& tp, bool row_parallel);
  void declare_up(const Options& options, const Site& site, const comm::Communicator& tp,
                  bool row_parallel);
  /// Ranges of outputs that no site has.
  void find_others(int64_t local_out);
  void multiply_by_down(const at::Tensor& down, const at::Tensor& x, int64_t first,
                        const kernels::Dropout& dropout) const;
  void multiply_by_up(const at::Tensor& grad_down, const at::Tensor& grad_output) const;
  /// x as the sites see it in training: each without some elements of its own, the same whatever
  /// the layout.
  template <typename Use>
  void for_each_seen(const at::Tensor& x, int64_t first, const kernels::Dropout& dropout,
                     Use use) const;
  void drop_(at::Tensor& x, size_t site, int64_t first, const kernels::Dropout& dropout) const;
  /// The columns of [T, R] that belong to site `index`.
  at::Tensor columns_of_site(const at::Tensor& rows, size_t index) const;

  LowRank low_rank_;
  int64_t first_input_;         // global number of local input feature 0
  parameters::Parameter down_;  // A: [sites * rank, local in]
  std::vector<std::unique_ptr<Up>> ups_;
  std::vector<Range> others_;
};

}  // namespace tptrain::tensor_parallel
