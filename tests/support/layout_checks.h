// Trainings on every layout of the session's ranks and in every ZeRO stage, against one rank. For
// tests under mpirun; collective over all ranks.
#pragma once

#include <cstdio>
#include <optional>

#include "base/text.h"
#include "comm/device_mesh.h"
#include "support/catch.h"
#include "support/mpi.h"
#include "support/parity_cases.h"
#include "support/training.h"

namespace tptrain::testing {

/// The same gradients, reduced micro-batch by micro-batch: each run is within `most` of
/// `reference`, what gets no gradient stays as it was, and the stages of a layout are bitwise
/// alike.
inline void check_layouts_and_stages(const model::DecoderConfig& config, TrainingOptions options,
                                     const TrainingRun& reference,
                                     const Deviation& most = kNumericsContract) {
  options.reduce_per_micro_batch = true;
  for (const comm::MeshShape shape : layouts_of(session().size())) {
    comm::DeviceMesh mesh(session(), shape, comm::DeviceType::cpu);
    const Axes axes{.world = session(), .tp = mesh.tp(), .dp = mesh.dp()};
    std::optional<TrainingRun> first;
    for (const int stage : {0, 1, 2, 3}) {
      options.zero_stage = stage;
      const TrainingRun run = train(config, axes, options);
      const Deviation deviation = compare(run, reference);
      CAPTURE(config.model_type, shape.tp_size, shape.dp_size, stage, deviation.loss,
              deviation.norm, deviation.first_gradient, deviation.first_gradient_name,
              deviation.last_gradient, deviation.last_gradient_name);
      CHECK(within(deviation, most));
      if (session().rank() == 0)
        std::puts(cat("| ", config::word(options.update_rule), " | ", config.model_type, " | ",
                      shape.tp_size, " | ", shape.dp_size, " | ", stage, " | ", row_of(deviation))
                      .c_str());
      for (const auto& [name, values] : reference.masters) {
        if (!reference.first_gradients.contains(name)) CHECK(run.masters.at(name) == values);
      }
      if (first) CHECK(bitwise_equal(run, *first));
      if (!first) first = run;
    }
  }
}

}  // namespace tptrain::testing
