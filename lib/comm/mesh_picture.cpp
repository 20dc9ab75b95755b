#include "comm/mesh_picture.h"

#include <algorithm>
#include <set>
#include <vector>

#include "base/text.h"

namespace tptrain::comm {

namespace {

constexpr int kMostShown = 8;
constexpr int kShownInFront = 6;
constexpr int kGap = -1;  // stands for the rows or columns left out

std::vector<int> shown(int size) {
  std::vector<int> indices;
  const bool all = size <= kMostShown;
  for (int i = 0; i < (all ? size : kShownInFront); ++i) indices.push_back(i);
  if (!all) indices.insert(indices.end(), {kGap, size - 1});
  return indices;
}

std::string left(const std::string& text, size_t width) {
  return text + std::string(width - std::min(width, text.size()), ' ');
}

std::string without_trailing_spaces(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

}  // namespace

std::string mesh_picture(MeshShape shape, DeviceType device,
                         const std::vector<std::string>& hosts) {
  const std::set<std::string> all_hosts(hosts.begin(), hosts.end());
  const int ranks = shape.dp_size * shape.tp_size;
  const std::vector<int> columns = shown(shape.tp_size);
  const std::vector<int> rows = shown(shape.dp_size);
  const size_t label_width = cat("  dp ", shape.dp_size - 1, "    ").size();
  const size_t cell_width = cat("rank ", ranks - 1, "   ").size();
  constexpr size_t kGapWidth = 6;  // "..." and three spaces

  std::string out =
      cat("device mesh: dp ", shape.dp_size, " x tp ", shape.tp_size, ", ", ranks,
          ranks == 1 ? " rank on " : " ranks on ", device == DeviceType::cuda ? "cuda" : "cpu");
  if (all_hosts.size() == 1) out += cat(", host ", hosts.front());
  if (all_hosts.size() > 1) out += cat(", ", all_hosts.size(), " hosts");
  out += "\n";
  const auto line = [&](const std::string& label, const auto& cell, const std::string& note) {
    std::string text = left(label, label_width);
    for (const int tp : columns) {
      text += tp == kGap ? left(cell(kGap), kGapWidth) : left(cell(tp), cell_width);
    }
    out += without_trailing_spaces(text + note) + "\n";
  };

  line(
      "", [](int tp) { return tp == kGap ? std::string("...") : cat("tp ", tp); }, "");
  bool first = true;
  for (const int dp : rows) {
    const auto cell = [&](int tp) {
      return tp == kGap || dp == kGap ? std::string("...") : cat("rank ", dp * shape.tp_size + tp);
    };
    std::string note = first && shape.tp_size > 1 ? "<- same data, sharded model" : "";
    if (all_hosts.size() > 1 && dp != kGap) {
      const auto begin = hosts.begin() + static_cast<std::ptrdiff_t>(dp) * shape.tp_size;
      note = cat("on ", join(std::set<std::string>(begin, begin + shape.tp_size), " and "),
                 note.empty() ? "" : "  ", note);
    }
    line(dp == kGap ? "  ..." : cat("  dp ", dp), cell, note);
    first = false;
  }
  if (shape.dp_size > 1) {
    line(
        "", [](int tp) { return std::string(tp == kGap ? "" : "  |"); }, "");
    out += std::string(label_width, ' ') + "gradients are summed down each column\n";
  }
  out.pop_back();
  return out;
}

}  // namespace tptrain::comm
