#include "config/checks.h"

#include <algorithm>
#include <optional>

#include "base/text.h"
#include "config/foreign_names.h"
#include "config/keys.h"
#include "config/parse.h"
#include "config/share.h"

namespace tptrain::config {
namespace {

bool is_zero_or_empty(const Value& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return *integer == 0;
  if (const auto* real = std::get_if<double>(&value)) return *real == 0;
  if (const auto* text = std::get_if<std::string>(&value)) return text->empty();
  if (const auto* list = std::get_if<std::vector<DataSource>>(&value)) return list->empty();
  return false;
}

template <typename Number>
std::string broken_limit(const Limits& limits, Number value) {
  const bool below = limits.at_least && value < static_cast<Number>(*limits.at_least);
  const bool beyond = limits.at_most && value > static_cast<Number>(*limits.at_most);
  const bool not_above = limits.above && value <= static_cast<Number>(*limits.above);
  const bool not_below = limits.below && value >= static_cast<Number>(*limits.below);
  std::vector<int64_t> few = few_values(limits);
  if ((below || beyond) && few.size() > 1) {
    const int64_t last = few.back();
    few.pop_back();
    return cat("be ", join(few), " or ", last);
  }
  if ((below || not_below) && limits.at_least && limits.below) {
    return cat("be at least ", *limits.at_least, " and less than ", *limits.below);
  }
  if (below) return cat("be at least ", *limits.at_least);
  if (beyond) return cat("be at most ", *limits.at_most);
  if (not_above) return cat("be greater than ", *limits.above);
  return "";
}

std::string broken_text_constraint(const Key& key, const std::string& text) {
  if (key.allowed.empty()) return text.empty() ? "not be empty" : "";
  const bool known = std::find(key.allowed.begin(), key.allowed.end(), text) != key.allowed.end();
  return known ? "" : cat("be ", key.allowed.size() > 1 ? "one of " : "", join(key.allowed));
}

// The constraint that the value breaks, or "". A member set in code can break any of them; one read
// from a file keeps its type.
std::string broken_constraint(const Key& key, const Value& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return broken_limit(key.limits, *integer);
  if (const auto* real = std::get_if<double>(&value)) return broken_limit(key.limits, *real);
  if (const auto* text = std::get_if<std::string>(&value))
    return broken_text_constraint(key, *text);
  if (const auto* betas = std::get_if<std::vector<double>>(&value)) {
    const bool in_range =
        std::all_of(betas->begin(), betas->end(), [](double b) { return b >= 0.0 && b < 1.0; });
    return betas->size() == 2 && in_range ? "" : "be two numbers, each at least 0 and less than 1";
  }
  if (const auto* sources = std::get_if<std::vector<DataSource>>(&value)) {
    if (sources->empty() && key.presence == Presence::required) {
      return "name at least one file or glob";
    }
    for (const DataSource& source : *sources) {
      if (source.path.empty()) return "name no empty path";
    }
  }
  return "";
}

// Each entry at its own place: a list of groups may be long.
void check_groups(const Key& key, const std::vector<ParameterGroup>& groups, const Places& places,
                  Checked& out) {
  for (size_t i = 0; i < groups.size(); ++i) {
    const std::string name = cat(key.path, "[", i, "]");
    const auto complain = [&](const std::string& member, const Value& value,
                              const std::string& constraint, const std::string& remedy) {
      const std::string path = cat(name, ".", member);
      out.others.push_back(problem(cat(path, " is ", shown(yaml_text(value))))
                               .at(place_of(path, places, place_of(key.path, places, "")))
                               .must(constraint)
                               .remedy(remedy));
    };
    const ParameterGroup& group = groups[i];
    if (group.match.empty()) {
      complain("match", group.match, "be a glob over tensor names",
               "For example match: \"*.bias\".");
    }
    if (group.weight_decay && *group.weight_decay < 0) {
      complain("weight_decay", *group.weight_decay, "be at least 0",
               "Write 0 for no decay, or leave it out for the default rule.");
    }
    if (group.learning_rate_scale < 0) {
      complain("learning_rate_scale", group.learning_rate_scale, "be at least 0",
               "Write 0 to freeze these tensors, or leave it out for 1.");
    }
  }
}

void check_sources(const Key& key, const std::vector<DataSource>& sources, const Places& places,
                   Checked& out) {
  std::string set;
  size_t in_set = 0;
  for (size_t i = 0; i < sources.size(); ++i, ++in_set) {
    const DataSource& source = sources[i];
    if (source.set != set) in_set = 0;
    set = source.set;
    const std::string name = cat(key.path, set.empty() ? "" : ".", set, "[", in_set, "]");
    const auto complain = [&](const std::string& member, const Value& value,
                              const std::string& constraint, const std::string& remedy) {
      const std::string path = cat(name, ".", member);
      out.others.push_back(problem(cat(path, " is ", shown(yaml_text(value))))
                               .at(place_of(path, places, place_of(key.path, places, "")))
                               .must(constraint)
                               .remedy(remedy));
    };
    const auto only_of_training = [&](const std::string& member, const Value& value) {
      if (key.type == Type::source_sets)
        complain(member, value, "be left out of data.eval", "It is of data.train alone.");
    };
    if (source.weight) {
      if (!(*source.weight > 0)) {
        complain("weight", *source.weight, "be greater than 0", "Leave out what is not to train.");
      }
      only_of_training("weight", *source.weight);
    }
    if (source.repeat < 1) {
      complain("repeat", source.repeat, "be at least 1", "A part of it: subset: 50%.");
    } else if (source.repeat > 1) {
      only_of_training("repeat", source.repeat);
    }
    if (!source.name.empty()) only_of_training("name", source.name);
    if (!source.subset.empty() && !share_of(source.subset)) {
      complain("subset", source.subset, "be a share of the rows such as 5%, or a number of rows",
               hint_for_share(source.subset));
    }
  }
}

// Each at the list's place, with what was perhaps meant.
void check_words(const Key& key, const std::vector<std::string>& words, const Places& places,
                 Checked& out) {
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string constraint = broken_text_constraint(key, words[i]);
    if (constraint.empty()) continue;
    Problem p = problem(cat(key.path, "[", i, "] is ", yaml_text(words[i])))
                    .at(place_of(key.path, places, ""))
                    .must(constraint);
    const std::string meant = nearest_word(words[i], key.allowed);
    if (!meant.empty()) p.remedy(cat("Did you mean ", meant, "?"));
    out.others.push_back(std::move(p));
  }
}

void check_value(const Key& key, const Value& value, const Places& places, Checked& out) {
  if (const auto* words = std::get_if<std::vector<std::string>>(&value)) {
    return check_words(key, *words, places, out);
  }
  if (const auto* groups = std::get_if<std::vector<ParameterGroup>>(&value)) {
    return check_groups(key, *groups, places, out);
  }
  const std::string constraint = broken_constraint(key, value);
  if (const auto* sources = std::get_if<std::vector<DataSource>>(&value); sources) {
    if (constraint.empty()) return check_sources(key, *sources, places, out);
  }
  if (constraint.empty()) return;
  Problem p = problem(cat(key.path, " is ", shown(yaml_text(value))))
                  .at(place_of(key.path, places, ""))
                  .must(constraint);
  if (const auto* text = std::get_if<std::string>(&value)) {
    p.remedy(hint_for_word(key, *text));
  }
  if (key.presence == Presence::absent && is_zero_or_empty(value)) {
    p.remedy("Leave the key out to give no value.");
  }
  out.others.push_back(std::move(p));
}

void check_key(const Key& key, const RunConfig& config, const Places& places,
               const std::string& name, Checked& out) {
  const bool given = places.count(key.path) > 0;
  std::optional<Value> value = key.get(config);
  if (!value && given && key.type != Type::boolean) {
    // An absent value was written: 0 or "". It is to be refused as what it is.
    const bool is_text = key.type == Type::text || key.type == Type::path;
    value = is_text                  ? Value(std::string())
            : key.type == Type::real ? Value(0.0)
                                     : Value(int64_t{0});
  }
  if (!value) return;
  if (key.presence == Presence::required && !given && is_zero_or_empty(*value)) {
    out.missing.push_back(
        {key.path, problem(cat(key.path, " is missing"))
                       .at(place_of(key.section(), places, name))
                       .must("be given")
                       .remedy(cat(key.doc, " For example `", key.name(), ": ", key.hint, "`."))});
    return;
  }
  check_value(key, *value, places, out);
}

bool has_value(const std::string& path, const RunConfig& config, const Places& places) {
  if (places.count(path) > 0) return true;
  if (const Key* key = find_key(path)) return key->get(config).has_value();
  return path == "model.architecture" && config.model.architecture.has_value();
}

std::string section_of(const std::string& path) { return path.substr(0, path.rfind('.')); }

void check_alternatives(const Alternatives& group, const RunConfig& config, const Places& places,
                        const std::set<std::string>& refused, const std::string& name,
                        Checked& out) {
  std::vector<std::string> given;
  for (const std::string& member : group.members) {
    if (has_value(member, config, places)) given.push_back(member);
  }
  const std::string section = section_of(group.members[0]);
  std::vector<std::string> names;
  for (const std::string& member : group.members)
    names.push_back(member.substr(section.size() + 1));
  if (given.size() > 1) {
    out.others.push_back(
        problem(cat(join(given, " and "), " are both given"))
            .at(place_of(given[1], places, ""))
            .must(cat(group.one_is_required ? "be exactly one of " : "be at most one of ",
                      join(names, " | ")))
            .remedy(cat("Remove one of them; the other stands at ",
                        place_of(given[0], places, given[0]), ".")));
  }
  if (!given.empty() || !group.one_is_required || refused.count(section) > 0) return;
  out.missing.push_back({cat(section, " (", join(names, " | "), ")"),
                         problem(cat(section, " names neither ", join(names, " nor ")))
                             .at(place_of(section, places, name))
                             .must(cat("give exactly one of ", join(names, " | ")))
                             .remedy(cat("For example `", group.example, "`."))});
}

}  // namespace

std::string place_of(const std::string& path, const Places& places, const std::string& otherwise) {
  const auto found = places.find(path);
  return found == places.end() ? otherwise : found->second;
}

Checked check_all(const RunConfig& config, const Places& places,
                  const std::set<std::string>& refused, const std::string& name) {
  Checked out;
  for (const Key& key : keys()) {
    const bool skip = std::any_of(refused.begin(), refused.end(), [&](const std::string& path) {
      return is_at_or_below(key.path, path);
    });
    if (!skip) check_key(key, config, places, name, out);
  }
  for (const Alternatives& group : alternatives()) {
    check_alternatives(group, config, places, refused, name, out);
  }
  for (Problem& p : cross_checks(config, places, refused)) out.others.push_back(std::move(p));
  return out;
}

std::vector<Problem> check_sections(const RunConfig& config, const Places& places) {
  const Checked checked = check_all(config, places, {}, "");
  std::vector<Problem> problems;
  for (const Missing& missing : checked.missing) problems.push_back(missing.problem);
  problems.insert(problems.end(), checked.others.begin(), checked.others.end());
  return problems;
}

}  // namespace tptrain::config
