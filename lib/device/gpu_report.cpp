#include "device/gpu_report.h"

#include <algorithm>
#include <map>
#include <sstream>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::device {

namespace {

// The one the benchmarks were run with. What older ones make of attention is not known here.
constexpr const char* kFastCudnn = "9.19.0";

std::vector<int64_t> numbers_of(const std::string& version) {
  std::vector<int64_t> numbers;
  std::istringstream text(version);
  for (std::string part; std::getline(text, part, '.');) {
    numbers.push_back(part.empty() || part.find_first_not_of("0123456789") != std::string::npos
                          ? 0
                          : std::stoll(part));
  }
  return numbers;
}

/// "rank 0", "ranks 0, 2, 3 and 12 more".
std::string ranks_text(const std::vector<size_t>& ranks) {
  constexpr size_t kMostNamed = 8;
  const std::vector<size_t> named(ranks.begin(),
                                  ranks.begin() + std::min(ranks.size(), kMostNamed));
  return cat(ranks.size() == 1 ? "rank " : "ranks ", join(named),
             ranks.size() > named.size() ? cat(" and ", ranks.size() - named.size(), " more") : "");
}

class Report {
 public:
  explicit Report(const std::vector<GpuFacts>& of_ranks) : of_ranks_(of_ranks) {}

  GpuReport make() {
    versions_line();
    links_line();
    for (const auto& [what, member] : compared()) warn_where_different(what, member);
    warn_of_old_libraries();
    warn_of_links();
    warn_of_queues();
    return report_;
  }

 private:
  using Member = std::string GpuFacts::*;
  static std::vector<std::pair<const char*, Member>> compared() {
    return {{"the GPU", &GpuFacts::name},      {"the driver", &GpuFacts::driver},
            {"CUDA", &GpuFacts::cuda_runtime}, {"cuDNN", &GpuFacts::cudnn},
            {"cuBLAS", &GpuFacts::cublas},     {"NCCL", &GpuFacts::nccl}};
  }

  template <typename Condition>
  std::vector<size_t> ranks_where(const Condition& holds) const {
    std::vector<size_t> ranks;
    for (size_t rank = 0; rank < of_ranks_.size(); ++rank) {
      if (holds(of_ranks_[rank])) ranks.push_back(rank);
    }
    return ranks;
  }

  void versions_line() {
    const GpuFacts& first = of_ranks_.front();
    const size_t hosts =
        ranks_where([](const GpuFacts& facts) { return facts.local_rank == 0; }).size();
    const auto or_unknown = [](const std::string& version) {
      return version.empty() ? std::string("unknown") : version;
    };
    report_.lines.push_back(
        cat("GPUs: ", of_ranks_.size(), " x ", first.name, " (", human_bytes(first.memory_bytes),
            ") on ", hosts, hosts == 1 ? " host" : " hosts", "; driver ", or_unknown(first.driver),
            " (CUDA ", first.driver_cuda, "), CUDA ", first.cuda_runtime, ", cuDNN ",
            or_unknown(first.cudnn), ", cuBLAS ", or_unknown(first.cublas), ", NCCL ", first.nccl));
  }

  bool has_neighbours() const {
    return !ranks_where([](const GpuFacts& facts) { return facts.peers > 0; }).empty();
  }

  void links_line() {
    if (!has_neighbours()) return;
    const bool all_mapped =
        ranks_where([](const GpuFacts& facts) { return facts.mapped_peers < facts.peers; }).empty();
    const std::optional<int>& links = of_ranks_.front().nvlinks;
    report_.lines.push_back(
        cat("links: the GPUs of a host ",
            all_mapped ? "map each other's memory (P2P)" : "do not all map each other's memory",
            ", NVLink ",
            !links        ? std::string("unknown (NVML does not say)")
            : *links == 0 ? std::string("none")
                          : cat(*links, *links == 1 ? " link" : " links", " a GPU active")));
  }

  void warn_where_different(const char* what, Member member) {
    std::map<std::string, std::vector<size_t>> ranks_of;
    for (size_t rank = 0; rank < of_ranks_.size(); ++rank)
      ranks_of[of_ranks_[rank].*member].push_back(rank);
    if (ranks_of.size() == 1) return;
    std::vector<std::string> parts;
    for (const auto& [value, ranks] : ranks_of)
      parts.push_back(cat(value.empty() ? "unknown" : value, " on ", ranks_text(ranks)));
    report_.warnings.push_back(cat("GPUs: ", what,
                                   " is not the same on every rank: ", join(parts, "; "),
                                   ". The slowest sets the pace, and results may differ in the "
                                   "last bits."));
  }

  void warn_of_old_libraries() {
    const auto warn = [&](const char* what, Member loaded, Member built, const char* least,
                          const char* consequence) {
      const auto wanted = [&](const GpuFacts& facts) {
        return is_older(facts.*built, least) ? std::string(least) : facts.*built;
      };
      const std::vector<size_t> ranks = ranks_where([&](const GpuFacts& facts) {
        return !(facts.*loaded).empty() && is_older(facts.*loaded, wanted(facts));
      });
      if (ranks.empty()) return;
      const GpuFacts& facts = of_ranks_[ranks.front()];
      report_.warnings.push_back(
          cat("GPUs: ", what, " ", facts.*loaded, " is loaded on ", ranks_text(ranks),
              ", older than ", wanted(facts), ": ", consequence,
              " Another copy comes first in LD_LIBRARY_PATH (ldd on the program shows which); take "
              "it out."));
    };
    warn("cuDNN", &GpuFacts::cudnn, &GpuFacts::cudnn_built, kFastCudnn,
         "attention may be slower than the benchmarks say.");
    warn("NCCL", &GpuFacts::nccl, &GpuFacts::nccl_built, "2.26.0",
         "collectives of tp and dp are not kept in one order of launch, and may be slower.");
  }

  void warn_of_links() {
    const std::vector<size_t> unmapped =
        ranks_where([](const GpuFacts& facts) { return facts.mapped_peers < facts.peers; });
    if (!unmapped.empty()) {
      const GpuFacts& facts = of_ranks_[unmapped.front()];
      report_.warnings.push_back(cat(
          "GPUs: no P2P on ", ranks_text(unmapped), " (rank ", unmapped.front(), " maps ",
          facts.mapped_peers, " of ", facts.peers,
          " neighbours): NCCL goes through the host's memory, several times slower. nvidia-smi "
          "topo "
          "-p2p r shows what the driver allows; a container needs --ipc=host, a virtual machine "
          "the whole switch domain."));
    }
    const std::vector<size_t> without =
        ranks_where([](const GpuFacts& facts) { return facts.peers > 0 && facts.nvlinks == 0; });
    if (!without.empty()) {
      report_.warnings.push_back(
          cat("GPUs: no active NVLink on ", ranks_text(without),
              ": tensors go over PCIe, several times slower. Prefer dp to tp here (nvidia-smi "
              "nvlink -s shows the links)."));
    }
  }

  // The streams of a step: the model's, AdamW's, and those of both axes.
  void warn_of_queues() {
    const std::vector<size_t> few = ranks_where(
        [](const GpuFacts& facts) { return facts.peers > 0 && facts.queues < kQueuesOfPushes; });
    if (few.empty()) return;
    report_.warnings.push_back(cat(
        "GPUs: CUDA_DEVICE_MAX_CONNECTIONS is ", of_ranks_[few.front()].queues, " on ",
        ranks_text(few),
        ": work of streams that share a queue waits for each other, so communication does not run "
        "beside products, and below ",
        kQueuesOfPushes, " there are no direct copies. Leave it unset: ", kQueues,
        " is taken then."));
  }

  const std::vector<GpuFacts>& of_ranks_;
  GpuReport report_;
};

}  // namespace

std::string to_wire(const GpuFacts& facts) {
  return cat(facts.name, "\n", facts.memory_bytes, "\n", facts.driver, "\n", facts.driver_cuda,
             "\n", facts.cuda_runtime, "\n", facts.nccl, "\n", facts.cudnn, "\n", facts.cublas,
             "\n", facts.nccl_built, "\n", facts.cudnn_built, "\n", facts.local_rank, "\n",
             facts.peers, "\n", facts.mapped_peers, "\n", facts.nvlinks.value_or(-1), "\n",
             facts.queues, "\n");
}

GpuFacts gpu_facts_from_wire(const std::string& text) {
  std::istringstream in(text);
  const auto next = [&] {
    std::string line;
    if (!std::getline(in, line))
      throw InternalError(problem("the facts of a rank's GPU end too early"));
    return line;
  };
  GpuFacts facts;
  facts.name = next();
  facts.memory_bytes = std::stoll(next());
  for (std::string* version :
       {&facts.driver, &facts.driver_cuda, &facts.cuda_runtime, &facts.nccl, &facts.cudnn,
        &facts.cublas, &facts.nccl_built, &facts.cudnn_built}) {
    *version = next();
  }
  facts.local_rank = std::stoi(next());
  facts.peers = std::stoi(next());
  facts.mapped_peers = std::stoi(next());
  if (const int links = std::stoi(next()); links >= 0) facts.nvlinks = links;
  facts.queues = std::stoi(next());
  return facts;
}

GpuReport gpu_report(const std::vector<GpuFacts>& of_ranks) { return Report(of_ranks).make(); }

std::string cudnn_version_text(int64_t version) {
  if (version <= 0) return "";
  return cat(version / 10000, ".", version % 10000 / 100, ".", version % 100);
}

std::string cuda_version_text(int64_t version) {
  return cat(version / 1000, ".", version % 1000 / 10);
}

std::string nccl_version_text(int64_t version) {
  return cat(version / 10000, ".", version % 10000 / 100, ".", version % 100);
}

bool is_older(const std::string& a, const std::string& b) {
  std::vector<int64_t> left = numbers_of(a);
  std::vector<int64_t> right = numbers_of(b);
  const size_t parts = std::max(left.size(), right.size());
  left.resize(parts);  // "9.19" is "9.19.0"
  right.resize(parts);
  return left < right;
}

}  // namespace tptrain::device
