#include "model/mlp.h"

namespace tptrain::model {

Mlp::Mlp(const DecoderConfig& config, const std::string& name, const comm::Communicator& tp)
    : gate_up_proj_({.name = name + ".gate_up_proj",
                     .outputs = {{.name = name + ".gate_proj",
                                  .features = config.intermediate_size,
                                  .local = tensor_parallel::share_of(config.intermediate_size,
                                                                     tp.rank(), tp.size())},
                                 {.name = name + ".up_proj",
                                  .features = config.intermediate_size,
                                  .local = tensor_parallel::share_of(config.intermediate_size,
                                                                     tp.rank(), tp.size())}},
                     .in_features = config.hidden_size,
                     .init_std = config.initializer_range}),
      down_proj_(
          {.name = name + ".down_proj",
           .in_features = config.intermediate_size,
           .out_features = config.hidden_size,
           .local = tensor_parallel::share_of(config.intermediate_size, tp.rank(), tp.size()),
           .init_std = config.initializer_range},
          tp) {}

std::vector<sharding::Parameter*> Mlp::parameters() {
  std::vector<sharding::Parameter*> all = gate_up_proj_.parameters();
  for (sharding::Parameter* parameter : down_proj_.parameters()) all.push_back(parameter);
  return all;
}

}  // namespace tptrain::model
