// Steps of ZeRO as a CUDA graph, NCCL included: replays are the steps that they were captured from,
// whatever reads the parameters in between. Gradients are functions of the parameters that a block
// finds, so that a stale or half-gathered one would show.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "mpi/zero/grid_run.h"
#include "support/catch.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::testing {
namespace {

constexpr int kMicroBatches = 2;
constexpr int kSteps = 7;

at::Device gpu() { return {at::kCUDA, static_cast<at::DeviceIndex>(session().local_rank())}; }

void write_gradient(parameters::Parameter& parameter, const at::Tensor& gradient) {
  if (tensor_parallel::accumulation_of(parameter) == kernels::Accumulate::overwrite) {
    parameter.main_grad.copy_(gradient);
  } else {
    parameter.main_grad.add_(gradient);
  }
}

void run_on_device(GridRun& grid, zero::MicroBatchPlace place) {
  zero::ZeroOptimizer& zero = grid.zero;
  const at::Tensor ids = lookup_ids(grid.mesh.device());
  zero.begin_micro_batch(place, grid.setup.looks_up ? ids : at::Tensor());
  tensor_parallel::BlockObserver& observer = zero;
  const int last = static_cast<int>(grid.model.blocks.size()) - 1;
  // What forward finds in each block goes into its gradient.
  std::vector<at::Tensor> found;
  for (int b = 0; b <= last; ++b) {
    observer.before_forward(b);
    at::Tensor sum = at::zeros({}, at::TensorOptions().device(grid.mesh.device()));
    if (grid.setup.looks_up && b == 0) {  // every row once: the table itself may be on its way
      sum = observer.look_up(*grid.model.blocks[0].parameters[0], ids).sum().to(at::kFloat);
    } else {
      for (const parameters::Parameter* parameter : grid.model.parameters_of(b))
        sum = sum + parameter->data.sum().to(at::kFloat);
    }
    found.push_back(sum.mul_(1e-3));
    observer.after_forward(b);
  }
  for (int b = last; b >= 0; --b) {
    observer.before_backward(b);
    const bool reads = grid.model.blocks[b].backward_reads_data;
    for (parameters::Parameter* parameter : grid.model.parameters_of(b)) {
      if (grid.setup.looks_up && b == 0) {
        observer.add_table_rows(
            *parameter,
            at::ones({ids.size(0), parameter->shape[1]}, found[b].options()).add_(found[b]), ids);
        continue;
      }
      const at::Tensor values =
          reads ? parameter->data.to(at::kFloat) : at::ones(parameter->shape, found[b].options());
      write_gradient(*parameter, values + found[b]);
    }
    observer.after_backward(b);
  }
}

zero::StepNumbers step_on_device(GridRun& grid, const at::Tensor& losses) {
  grid.zero.begin_step();
  for (int i = 1; i <= kMicroBatches; ++i) {
    run_on_device(grid, i == kMicroBatches ? zero::MicroBatchPlace::last
                                           : zero::MicroBatchPlace::before_last);
  }
  grid.zero.finish_reduction();
  const zero::StepNumbers numbers = grid.zero.clip(1.0, losses);
  grid.zero.update();
  return numbers;
}

TEST_CASE("a step replayed as a graph is the step itself, in every stage", "[zero]") {
  const c10::cuda::CUDAGuard on_device(gpu());
  const c10::cuda::CUDAStreamGuard on_stream(c10::cuda::getStreamFromPool(false, gpu().index()));
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1, 2, 3}) {
      for (const Head head : {Head::own_table, Head::tied}) {
        const Setup setup{.layout = layout,
                          .stage = stage,
                          .head = head,
                          .dtype = at::kBFloat16,
                          .device = comm::DeviceType::cuda,
                          .looks_up = stage % 2 == 1};
        INFO(setup.text());
        GridRun eager(setup), replayed(setup);
        const at::Tensor losses = at::ones({2}, at::TensorOptions().device(eager.mesh.device()));
        const auto set_rate = [](GridRun& grid, int step) {
          grid.zero.prepare_step(1e-2 / (1 + step));
        };
        std::vector<float> norms;
        std::vector<std::vector<at::Tensor>> snapshots;
        for (int step = 0; step < kSteps; ++step) {
          set_rate(eager, step);
          norms.push_back(step_on_device(eager, losses).norm.item<float>());
        }
        GridRun read(setup);  // after every step; `eager` after the last one alone
        for (int step = 0; step < kSteps; ++step) {
          set_rate(read, step);
          CHECK(step_on_device(read, losses).norm.item<float>() == norms[step]);
          snapshots.push_back(read.snapshot());
        }
        CHECK(same_bits(snapshots.back(), eager.snapshot()));

        set_rate(replayed, 0);
        CHECK(step_on_device(replayed, losses).norm.item<float>() == norms[0]);
        // A graph captured behind an evaluation, or with the first update still to be done.
        if (head == Head::tied) run_forward(replayed.model, replayed.zero);
        replayed.zero.assume_updated();
        at::cuda::CUDAGraph graph;
        c10::cuda::getCurrentCUDAStream().synchronize();
        graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
        const zero::StepNumbers numbers = step_on_device(replayed, losses);
        graph.capture_end();
        for (int step = 1; step < kSteps; ++step) {
          set_rate(replayed, step);
          if (step == kSteps - 1) {  // issued call by call behind replays
            CHECK(step_on_device(replayed, losses).norm.item<float>() == norms[step]);
            break;
          }
          graph.replay();
          replayed.zero.assume_updated();
          CHECK(numbers.norm.item<float>() == norms[step]);
          if (step == 2) run_forward(replayed.model, replayed.zero);
          if (step == 3) CHECK(same_bits(replayed.snapshot(), snapshots[step]));
          if (step == 4) replayed.zero.state().hash_parameters();
        }
        CHECK(same_bits(replayed.snapshot(), snapshots.back()));
        CHECK(replayed.zero.state().updates_done() == kSteps);
      }
    }
  }
}

TEST_CASE("announced micro-batches and evaluations change no bit on GPUs", "[zero]") {
  for (const Layout& layout : layouts()) {
    for (const int stage : {0, 1, 2, 3}) {
      const Setup setup{.layout = layout,
                        .stage = stage,
                        .head = Head::tied,
                        .dtype = at::kBFloat16,
                        .device = comm::DeviceType::cuda};
      Setup unannounced = setup;
      unannounced.announces_last = false;
      INFO(setup.text());
      GridRun early(setup), late(unannounced);
      for (int step = 0; step < 3; ++step) {
        early.step(step);
        run_forward(early.model, early.zero);
        late.step(step);
      }
      CHECK(same_bits(early.snapshot(), late.snapshot()));
    }
  }
}

}  // namespace
}  // namespace tptrain::testing
