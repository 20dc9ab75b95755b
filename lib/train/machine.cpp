#include "train/machine.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdlib>

#include "base/background.h"
#include "base/text.h"
#include "base/work.h"
#include "comm/mesh_picture.h"
#include "comm/nccl_library.h"
#include "device/device_facts.h"
#include "device/device_info.h"
#include "kernels/cpu/allocation.h"
#include "kernels/kernels.h"
#include "model/head_share.h"
#include "optim/parameter_groups.h"
#include "train/fp8_report.h"
#include "train/host_agreement.h"
#include "train/out_of_memory.h"
#include "train/run_log.h"
#include "train/run_options.h"

namespace tptrain::train {
namespace {

/// Refuses a group of optimizer.groups that decides for no tensor: a typo would change the
/// training.
void check_parameter_groups(const config::OptimizerConfig& optimizer,
                            const model::Decoder& decoder) {
  std::vector<std::string> names;
  for (const parameters::Parameter* parameter : decoder.parameters()) {
    for (const parameters::NamedSlice& slice : parameter->slices) names.push_back(slice.spec.name);
  }
  const std::vector<Problem> problems = optim::check_groups(optimizer, names);
  if (!problems.empty()) throw ConfigError(problems);
}

/// What attention runs on, for the layout's share of heads.
kernels::AttentionBackend attention_of(const ResolvedConfig& resolved, comm::DeviceMesh& mesh) {
  const model::HeadShare share =
      model::head_share(resolved.decoder, mesh.tp_rank(), mesh.shape().tp_size);
  const kernels::AttentionShape shape = {.heads = share.heads.size(),
                                         .kv_heads = share.kv_heads.size(),
                                         .head_dim = resolved.decoder.head_dim};
  const int64_t width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  const at::Tensor two_positions =
      at::empty({2, 1, width},
                at::TensorOptions(scalar_type(resolved.run.train.dtype)).device(mesh.device()));
  return kernels::attention_backend(two_positions, shape,
                                    resolved.run.data.document_mask
                                        ? kernels::AttentionMask::documents
                                        : kernels::AttentionMask::causal);
}

/// The GPUs, their libraries and links, and which attention they run. Collective.
void log_gpus(comm::MpiSession& session, comm::DeviceMesh& mesh, const ResolvedConfig& resolved,
              Logger& log) {
  if (resolved.device != comm::DeviceType::cuda) return;
  device::GpuFacts own = device::gpu_facts(mesh.device(), session.local_rank(), mesh.host_gpus());
  const comm::NcclLibrary nccl = comm::nccl_library();
  own.nccl = nccl.loaded;
  own.nccl_built = nccl.built;
  std::vector<device::GpuFacts> of_ranks;
  for (const std::string& wire : session.all_gather(to_wire(own))) {
    of_ranks.push_back(device::gpu_facts_from_wire(wire));
  }
  const device::GpuReport report = device::gpu_report(of_ranks);
  for (const std::string& line : report.lines) log.info(line);
  log.info(cat("tensors travel by: ", mesh.transport()));
  if (!device::peak_flops(mesh.device(), scalar_type(resolved.run.train.dtype)))
    log.info(
        cat("mfu: left out, the peak of ", device::device_name(mesh.device()), " is not known"));
  if (session.rank() == 0) {
    for (const std::string& line : report.warnings) log.warn(line);
    for (const std::string& line : mesh.warnings()) log.warn(line);
  }
  if (resolved.run.train.attention_dropout > 0) return;  // a path of its own, with its own warning
  const kernels::AttentionBackend attention = attention_of(resolved, mesh);
  log.info(cat("attention: ", attention.name));
  if (session.rank() == 0 && !attention.slower_than.empty())
    log.warn(cat("attention: ", attention.name, " is slower than ", attention.slower_than));
}

}  // namespace

void prepare_host(const config::TrainConfig& train, const comm::MpiSession& session,
                  comm::DeviceType device) {
  const int automatic = std::max(1, usable_cores() / session.local_size());
  at::set_num_threads(train.cpu_threads > 0 ? static_cast<int>(train.cpu_threads) : automatic);
  // Activations come and go each step: given back to the kernel they would be faulted in again,
  // page by page.
  if (device == comm::DeviceType::cpu) kernels::cpu::retain_freed_memory();
  // Sums in fp32 and rounded once, also where a product left to ATen is cut along its inner size.
  at::globalContext().setAllowBF16ReductionCuBLAS(/*allow_reduced_precision=*/false);
  if (device == comm::DeviceType::cuda && train.deterministic) {
    // cuBLAS reads it when it starts: with workspaces of a fixed size it adds in a fixed order.
    setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
    // Nothing here reads memory that was not written: filling it first would only cost time.
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  }
}

comm::DeviceMesh& set_up_mesh(comm::MpiSession& session, const ResolvedConfig& resolved,
                              const std::vector<std::string>& hosts, Logger& log,
                              Machine& machine) {
  session.board()->enter("setting up the device mesh");
  {
    const Work work("setting up the device mesh");
    machine.mesh.emplace(session, resolved.mesh, resolved.device, comm::CpuOptions{},
                         axis_copies(resolved.run.parallel));
  }
  comm::DeviceMesh& mesh = *machine.mesh;
  log.info(comm::mesh_picture(mesh.shape(), mesh.device_type(), hosts));
  const std::string slow = tp_group_across_hosts(hosts, mesh.shape().tp_size);
  if (session.rank() == 0 && !slow.empty()) log.warn(slow);
  log_gpus(session, mesh, resolved, log);
  return mesh;
}

Engine& build_engine(comm::MpiSession& session, const ResolvedConfig& resolved, Logger& log,
                     Machine& machine) {
  session.board()->enter("building the model");
  comm::DeviceMesh& mesh = *machine.mesh;
  comm::agree(session, [&] { check_fp8(resolved, mesh.device()); });
  {
    const Work work("building the model");
    Engine::Options options = engine_options(resolved);
    options.clock = &session.board()->clock();
    machine.engine.emplace(options, mesh.tp(), mesh.dp(), mesh.device());
  }
  Engine& engine = *machine.engine;
  comm::agree(
      session, [&] { check_parameter_groups(resolved.run.optimizer, engine.decoder()); },
      OnStop::give_up);
  if (session.rank() == 0) {
    log_model(resolved, log);
    log_fp8(resolved, engine.decoder(), log);
  }
  return engine;
}

ConfigError out_of_memory_error(const std::exception& error, const ResolvedConfig& resolved,
                                const std::string& doing, at::Device device) {
  const device::DeviceUse use = device::device_use(device);
  return ConfigError(
      out_of_memory_problem({.doing = doing,
                             .device_name = device::device_name(device),
                             .asked_for = bytes_asked_for(error.what()),
                             .use = use,
                             .forecast = forecast_memory(resolved, use.total_bytes)}));
}

}  // namespace tptrain::train
