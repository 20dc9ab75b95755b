// What ranks on different hosts must have alike before they work: each reads its own copy of the
// program, of a model's files, of its drivers, and nothing later would notice that they differ.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "comm/control.h"
#include "tokenizer/tokenizer.h"
#include "train/resolve.h"

namespace tptrain::train {

/// One thing that must be alike. `value` may have several lines: the first that differs is shown.
struct Fact {
  std::string name;  // "the program"
  std::string value;
  std::string remedy;  // where it differs
};

/// What this rank made of its own program, files and device. The run file's text is rank 0's; what
/// a rank was given beside it is its own.
std::vector<Fact> facts_of(const std::string& program, const ResolvedConfig& resolved,
                           const tokenizer::Tokenizer& tokenizer);

/// What differs between rank 0 and another rank: one problem a fact, with the first such rank.
/// `of_ranks` and `hosts` in rank order; the facts are the same in number and order.
std::vector<Problem> differing_facts(const std::vector<std::vector<Fact>>& of_ranks,
                                     const std::vector<std::string>& hosts);

/// Throws ConfigError, the same on every rank, naming rank, host and value of what differs. Returns
/// the ranks' hosts, in rank order. Collective.
std::vector<std::string> agree_on_facts(comm::ControlGroup& group, const std::vector<Fact>& own);

/// "" or why a tp group of these ranks is slow: it goes over several hosts.
std::string tp_group_across_hosts(const std::vector<std::string>& hosts, int tp_size);

}  // namespace tptrain::train
