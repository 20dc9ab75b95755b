// What a run stands on, in the order it is made: the process's settings, the mesh, the engine.
#pragma once

#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "comm/device_mesh.h"
#include "comm/mpi_session.h"
#include "train/engine.h"
#include "train/resolve.h"

namespace tptrain::train {

/// Outlives a failure, which is looked at with it still there.
struct Machine {
  std::optional<comm::DeviceMesh> mesh;
  std::optional<Engine> engine;
};

/// Threads, memory and arithmetic of this process.
void prepare_host(const config::TrainConfig& train, const comm::MpiSession& session,
                  comm::DeviceType device);
/// Says what it finds. hosts: of each rank. Collective.
comm::DeviceMesh& set_up_mesh(comm::MpiSession& session, const ResolvedConfig& resolved,
                              const std::vector<std::string>& hosts, Logger& log, Machine& machine);
/// On the machine's mesh; without values. Collective.
Engine& build_engine(comm::MpiSession& session, const ResolvedConfig& resolved, Logger& log,
                     Machine& machine);

/// What a run is told that memory has run out for. doing: "step 3, forward and backward".
ConfigError out_of_memory_error(const std::exception& error, const ResolvedConfig& resolved,
                                const std::string& doing, at::Device device);

}  // namespace tptrain::train
