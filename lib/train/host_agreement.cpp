#include "train/host_agreement.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "base/host.h"
#include "base/text.h"
#include "config/parse.h"
#include "model/decoder_config.h"

namespace tptrain::train {
namespace {

constexpr size_t kShownBytes = 200;

/// Takes the first line off; "nothing" where there is none left.
std::string take_line(std::string_view& text) {
  if (text.empty()) return "nothing";
  const std::string_view line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(text.size(), line.size() + 1));
  const size_t begin = std::min(line.find_first_not_of(' '), line.size());
  std::string shown(line.substr(begin, kShownBytes));
  if (shown.ends_with(',')) shown.pop_back();  // of JSON
  return shown;
}

/// The first line of each in which they differ.
std::pair<std::string, std::string> first_difference(std::string_view a, std::string_view b) {
  while (true) {
    std::string of_a = take_line(a);
    std::string of_b = take_line(b);
    if (of_a != of_b || (a.empty() && b.empty())) return {std::move(of_a), std::move(of_b)};
  }
}

std::string wire(const std::vector<Fact>& facts) {
  nlohmann::json message = {{"host", host_name()}, {"values", nlohmann::json::array()}};
  for (const Fact& fact : facts) message["values"].push_back(fact.value);
  // A name on a host may hold any bytes: they are compared, and shown as far as they can be.
  return message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::vector<Fact> facts_of(const std::string& program, const ResolvedConfig& resolved,
                           const tokenizer::Tokenizer& tokenizer) {
  return {{.name = "the program",
           .value = cat(program, ", build ", program_build_id()),
           .remedy = "Install one and the same build on every host."},
          {.name = cat("the device (train.device: ", word(resolved.run.train.device), ")"),
           .value = resolved.device == comm::DeviceType::cuda ? "cuda" : "cpu (no usable GPU)",
           .remedy = "Set train.device: cpu, or look on that host for the driver (nvidia-smi) and "
                     "CUDA_VISIBLE_DEVICES."},
          {.name = "the configuration",
           .value = config::to_yaml(resolved.run),
           .remedy = "Start every rank with the same --set options."},
          {.name = "the model's shape (config.json)",
           .value = model::to_json(resolved.decoder),
           .remedy = "Put the same copy of model.path on every host."},
          {.name = "the tokenizer",
           .value = tokenizer.hash(),
           .remedy = "Put the same copy of data.tokenizer on every host."}};
}

std::vector<Problem> differing_facts(const std::vector<std::vector<Fact>>& of_ranks,
                                     const std::vector<std::string>& hosts) {
  std::vector<Problem> problems;
  const std::vector<Fact>& first = of_ranks.front();
  for (size_t i = 0; i < first.size(); ++i) {
    for (size_t rank = 1; rank < of_ranks.size(); ++rank) {
      const std::string& value = of_ranks[rank].at(i).value;
      if (value == first[i].value) continue;
      const auto [of_first, of_rank] = first_difference(first[i].value, value);
      problems.push_back(problem(cat(first[i].name, " differs: rank ", rank, " on ", hosts[rank],
                                     " has ", of_rank, ", rank 0 on ", hosts[0], " has ", of_first))
                             .must("be the same on every rank")
                             .remedy(first[i].remedy));
      break;
    }
  }
  return problems;
}

std::vector<std::string> agree_on_facts(comm::ControlGroup& group, const std::vector<Fact>& own) {
  const std::vector<std::string> messages = group.all_gather(wire(own));
  std::vector<std::string> hosts;
  comm::agree(group, [&] {
    std::vector<std::vector<Fact>> of_ranks;
    for (const std::string& text : messages) {
      const nlohmann::json message = nlohmann::json::parse(text);
      hosts.push_back(message["host"].get<std::string>());
      std::vector<Fact>& facts = of_ranks.emplace_back(own);
      for (size_t i = 0; i < facts.size(); ++i)
        facts[i].value = message["values"].at(i).get<std::string>();
    }
    const std::vector<Problem> problems = differing_facts(of_ranks, hosts);
    if (!problems.empty()) throw ConfigError(problems);
  });
  return hosts;
}

std::string tp_group_across_hosts(const std::vector<std::string>& hosts, int tp_size) {
  const auto size = static_cast<size_t>(tp_size);
  for (size_t first = 0; first + size <= hosts.size(); first += size) {
    const std::set<std::string> of_group(hosts.begin() + static_cast<std::ptrdiff_t>(first),
                                         hosts.begin() + static_cast<std::ptrdiff_t>(first + size));
    if (of_group.size() < 2) continue;
    return cat("the tp group of ranks ", first, " to ", first + size - 1, " goes over hosts ",
               join(of_group, " and "), ": each layer waits for the network between them several ",
               "times. Place consecutive ranks on one host (mpirun --map-by slot, srun "
               "--distribution=block), or lower parallel.tp_size to the ranks of a host");
  }
  return {};
}

}  // namespace tptrain::train
