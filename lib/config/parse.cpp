#include "config/parse.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "base/text.h"
#include "config/checks.h"
#include "config/keys.h"
#include "config/yaml_entries.h"

namespace tptrain::config {
namespace {

// What file and overrides give together, the overrides already in their places.
struct Merged {
  std::vector<Entry> entries;
  std::map<std::string, std::string> places;
  std::set<std::string> refused;
  std::vector<Problem> problems;
  int64_t untold = 0;
  bool empty_file = false;
};

// Drops what `path` replaces: other members of its group of alternatives, as far as the *file* gave
// them.
void drop_alternatives(Merged& merged, const std::string& path,
                       const std::set<std::string>& overridden) {
  const auto replaced_by_path = [&](const std::string& other) {
    if (overridden.count(other) > 0) return false;
    for (const Alternatives& group : alternatives()) {
      for (const std::string& mine : group.members) {
        if (!is_at_or_below(path, mine)) continue;
        for (const std::string& theirs : group.members) {
          if (theirs != mine && is_at_or_below(other, theirs)) return true;
        }
      }
    }
    return false;
  };
  std::erase_if(merged.entries, [&](const Entry& e) { return replaced_by_path(e.key->path); });
  std::erase_if(merged.places, [&](const auto& place) { return replaced_by_path(place.first); });
}

// Whether a place is that of something within the list `path`: "optimizer.groups[1].match".
auto is_entry_of(const std::string& path) {
  return [prefix = path + "["](const auto& place) { return place.first.starts_with(prefix); };
}

Merged merge(const std::string& yaml_text, const std::string& name,
             const std::vector<std::string>& overrides) {
  Merged merged;
  Entries file = read_file_text(yaml_text, name);
  merged.entries = std::move(file.entries);
  merged.places.insert(file.given.begin(), file.given.end());
  merged.refused = std::move(file.refused);
  merged.problems = std::move(file.problems);
  merged.untold = file.untold;
  merged.empty_file = file.empty_text;

  std::set<std::string> overridden;
  for (const std::string& text : overrides) {
    Entries from_set = read_override(text);
    merged.problems.insert(merged.problems.end(), from_set.problems.begin(),
                           from_set.problems.end());
    merged.untold += from_set.untold;
    for (const auto& [path, place] : from_set.given) {
      overridden.insert(path);
      // A list replaces the file's, so the places of the file's entries go with them.
      if (find_key(path)) std::erase_if(merged.places, is_entry_of(path));
      // An override within a section leaves the place of the section in the file.
      if (find_key(path) || merged.places.count(path) == 0) merged.places[path] = place;
      for (const std::string& section : optional_sections()) {
        if (path == section || !is_at_or_below(path, section)) continue;
        overridden.insert(section);
        merged.places.emplace(section, place);
      }
      drop_alternatives(merged, path, overridden);
    }
    merged.refused.insert(from_set.refused.begin(), from_set.refused.end());
    for (Entry& entry : from_set.entries) merged.entries.push_back(std::move(entry));
  }
  return merged;
}

}  // namespace

Parsed parse_run_config(const std::string& yaml_text, const std::string& name,
                        const std::vector<std::string>& overrides) {
  Merged merged = merge(yaml_text, name, overrides);
  Parsed parsed;
  parsed.places = merged.places;
  if (parsed.places.count("model.architecture") > 0) parsed.config.model.architecture.emplace();
  if (parsed.places.count("adapter") > 0) parsed.config.adapter.emplace();
  for (const Entry& entry : merged.entries) entry.key->set(parsed.config, entry.value);

  // A file that is no mapping at all has that one problem; that it then lacks every key is no news.
  if (merged.refused.count("") > 0) throw ConfigError(merged.problems);
  const Checked checked = check_all(parsed.config, parsed.places, merged.refused, name);
  if (merged.empty_file && !checked.missing.empty()) {
    std::vector<std::string> names;
    for (const auto& missing : checked.missing) names.push_back(missing.name);
    merged.problems.push_back(problem("the file gives no key")
                                  .at(name)
                                  .must(cat("give at least ", join(names)))
                                  .remedy("docs/configuration.md has every key, and configs/ "
                                          "files to start from."));
  } else {
    for (const auto& missing : checked.missing) merged.problems.push_back(missing.problem);
  }
  merged.problems.insert(merged.problems.end(), checked.others.begin(), checked.others.end());
  if (merged.untold > 0) {
    merged.problems.push_back(problem(cat("there are ", merged.untold, " more problems"))
                                  .at(name)
                                  .remedy("Those above are the first of them."));
  }
  if (!merged.problems.empty()) throw ConfigError(merged.problems);
  return parsed;
}

}  // namespace tptrain::config
