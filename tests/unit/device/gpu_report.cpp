// What a run says at its start about its GPUs: lines, and warnings where ranks differ or something
// slower was picked.
#include "device/gpu_report.h"

#include "support/catch.h"

namespace tptrain::device {
namespace {

GpuFacts h200(int local_rank) {
  return {.name = "NVIDIA H200",
          .memory_bytes = 150'110'011'392,
          .driver = "580.65.06",
          .driver_cuda = "13.0",
          .cuda_runtime = "13.0",
          .nccl = "2.28.9",
          .cudnn = "9.19.0",
          .cublas = "13.1.0",
          .nccl_built = "2.28.9",
          .cudnn_built = "9.19.0",
          .local_rank = local_rank,
          .peers = 1,
          .mapped_peers = 1,
          .nvlinks = 18};
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("two GPUs that lack nothing: two lines, no warning") {
  const GpuReport report = gpu_report({h200(0), h200(1)});
  REQUIRE(report.lines.size() == 2);
  CHECK(report.lines[0] ==
        "GPUs: 2 x NVIDIA H200 (139.80 GiB) on 1 host; driver 580.65.06 (CUDA 13.0), CUDA 13.0, "
        "cuDNN 9.19.0, cuBLAS 13.1.0, NCCL 2.28.9");
  CHECK(report.lines[1] ==
        "links: the GPUs of a host map each other's memory (P2P), NVLink 18 links a GPU active");
  CHECK(report.warnings.empty());
}

TEST_CASE("one GPU has no links to speak of") {
  GpuFacts alone = h200(0);
  alone.peers = alone.mapped_peers = 0;
  alone.nvlinks = 0;
  alone.driver = "";  // no NVML in this container
  const GpuReport report = gpu_report({alone});
  REQUIRE(report.lines.size() == 1);
  CHECK(has(report.lines[0], "GPUs: 1 x NVIDIA H200"));
  CHECK(has(report.lines[0], "driver unknown (CUDA 13.0)"));
  CHECK(report.warnings.empty());
}

TEST_CASE("hosts are counted by their first ranks") {
  const GpuReport report = gpu_report({h200(0), h200(1), h200(0), h200(1)});
  CHECK(has(report.lines[0], "GPUs: 4 x NVIDIA H200 (139.80 GiB) on 2 hosts"));
}

TEST_CASE("what differs between ranks is a warning that names them") {
  std::vector<GpuFacts> ranks(12, h200(0));
  ranks[3].name = "NVIDIA H100 80GB HBM3";
  ranks[3].driver = "";
  const GpuReport report = gpu_report(ranks);
  REQUIRE(report.warnings.size() == 2);
  CHECK(report.warnings[0] ==
        "GPUs: the GPU is not the same on every rank: NVIDIA H100 80GB HBM3 on rank 3; NVIDIA H200 "
        "on ranks 0, 1, 2, 4, 5, 6, 7, 8 and 3 more. The slowest sets the pace, and results may "
        "differ in the last bits.");
  CHECK(has(report.warnings[1], "the driver is not the same on every rank: unknown on rank 3; "));
}

TEST_CASE("an older library than the program's own is a warning") {
  GpuFacts old = h200(1);
  SECTION("cuDNN") {
    old.cudnn = "9.1.0";  // by numbers, not by letters
    const GpuReport report = gpu_report({h200(0), old});
    REQUIRE(report.warnings.size() == 2);
    CHECK(has(report.warnings[0], "cuDNN is not the same on every rank"));
    CHECK(has(report.warnings[1], "cuDNN 9.1.0 is loaded on rank 1, older than 9.19.0: "));
    CHECK(has(report.warnings[1], "LD_LIBRARY_PATH"));
  }
  SECTION("cuDNN, built with an old one too") {
    old.cudnn = old.cudnn_built = "9.10.2";
    const GpuReport report = gpu_report({old});
    REQUIRE(report.warnings.size() == 1);
    CHECK(has(report.warnings[0], "cuDNN 9.10.2 is loaded on rank 0, older than 9.19.0: "));
  }
  SECTION("NCCL") {
    old.nccl = "2.21.5";
    const GpuReport report = gpu_report({old});
    REQUIRE(report.warnings.size() == 1);
    CHECK(has(report.warnings[0], "NCCL 2.21.5 is loaded on rank 0, older than 2.28.9: "));
  }
  SECTION("newer is no warning") {
    old.cudnn = "9.21.1";
    old.nccl = "2.30.0";
    CHECK(gpu_report({old}).warnings.empty());
  }
}

TEST_CASE("few queues of the device are a warning where there is somebody to talk to") {
  std::vector<GpuFacts> ranks = {h200(0), h200(1)};
  ranks[1].queues = 1;
  const GpuReport report = gpu_report(ranks);
  REQUIRE(report.warnings.size() == 1);
  CHECK(
      report.warnings[0] ==
      "GPUs: CUDA_DEVICE_MAX_CONNECTIONS is 1 on rank 1: work of streams that share a queue waits "
      "for each other, so communication does not run beside products, and below 16 there are no "
      "direct copies. Leave it unset: 32 is taken then.");
  ranks[1].queues = 16;
  CHECK(gpu_report(ranks).warnings.empty());
  GpuFacts alone = h200(0);
  alone.peers = alone.mapped_peers = 0;
  alone.queues = 1;
  CHECK(gpu_report({alone}).warnings.empty());
}

TEST_CASE("links that are missing are a warning") {
  std::vector<GpuFacts> ranks = {h200(0), h200(1)};
  SECTION("no P2P") {
    ranks[0].mapped_peers = ranks[1].mapped_peers = 0;
    const GpuReport report = gpu_report(ranks);
    CHECK(has(report.lines[1], "do not all map each other's memory"));
    REQUIRE(report.warnings.size() == 1);
    CHECK(has(report.warnings[0], "no P2P on ranks 0, 1 (rank 0 maps 0 of 1 neighbours)"));
    CHECK(has(report.warnings[0], "through the host's memory"));
  }
  SECTION("no NVLink") {
    ranks[0].nvlinks = ranks[1].nvlinks = 0;
    const GpuReport report = gpu_report(ranks);
    CHECK(has(report.lines[1], "NVLink none"));
    REQUIRE(report.warnings.size() == 1);
    CHECK(has(report.warnings[0], "no active NVLink on ranks 0, 1"));
  }
  SECTION("unknown is not none") {
    ranks[0].nvlinks = ranks[1].nvlinks = std::nullopt;
    const GpuReport report = gpu_report(ranks);
    CHECK(has(report.lines[1], "NVLink unknown (NVML does not say)"));
    CHECK(report.warnings.empty());
  }
}

TEST_CASE("facts travel as text") {
  GpuFacts facts = h200(1);
  CHECK(gpu_facts_from_wire(to_wire(facts)) == facts);
  facts.driver = "";
  facts.cudnn = "";
  facts.nvlinks = std::nullopt;
  CHECK(gpu_facts_from_wire(to_wire(facts)) == facts);
}

TEST_CASE("version numbers are written as their makers write them") {
  CHECK(cudnn_version_text(91900) == "9.19.0");
  CHECK(cudnn_version_text(90102) == "9.1.2");
  CHECK(cudnn_version_text(0).empty());
  CHECK(cuda_version_text(12080) == "12.8");
  CHECK(cuda_version_text(13000) == "13.0");
  CHECK(nccl_version_text(22809) == "2.28.9");
  CHECK(is_older("9.9.1", "9.10"));
  CHECK(!is_older("9.19.0", "9.19"));
  CHECK(!is_older("9.19", "9.19.0"));
  CHECK(!is_older("10.0", "9.19"));
}

}  // namespace tptrain::device
