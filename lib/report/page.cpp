#include "report/page.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/text.h"
#include "base/work_display.h"
#include "report/html.h"
#include "report/page_assets.h"
#include "report/settings_table.h"
#include "report/summary.h"
#include "report/time_share.h"

namespace tptrain::report {
namespace {

using Cells = std::vector<std::string>;  // HTML

std::string text_cell(const std::string& text) { return cat("<td>", html_text(text), "</td>"); }
std::string number_cell(const std::string& text) {
  return cat("<td class=\"n\">", html_text(text), "</td>");
}
std::string code_cell(const std::string& text) {
  return cat("<td><code>", html_text(text), "</code></td>");
}

/// `heads`: those that begin with '#' stand over numbers.
std::string table(const std::string& caption, const std::vector<std::string>& heads,
                  const std::vector<Cells>& rows) {
  std::string out = cat("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"",
                        html_text(caption), "\"><table><thead><tr>");
  for (const std::string& head : heads) {
    const bool number = head.starts_with("#");
    out += cat("<th scope=\"col\"", number ? " class=\"n\">" : ">",
               html_text(number ? head.substr(1) : head), "</th>");
  }
  out += "</tr></thead><tbody>\n";
  for (const Cells& row : rows) out += cat("<tr>", join(row, ""), "</tr>\n");
  return out + "</tbody></table></div>\n";
}

std::string section(const std::string& id, const std::string& title, const std::string& content) {
  return cat("<section aria-labelledby=\"", id, "\"><h2 id=\"", id, "\">", html_text(title),
             "</h2>\n", content, "</section>\n");
}

constexpr int kColours = 8;          // of the page's style sheet
constexpr int kColourOfNothing = 8;  // in which nothing was done

std::string swatch_of(int colour) {
  return cat("<span class=\"sw f", colour, "\" aria-hidden=\"true\"></span> ");
}
std::string swatch(size_t run) { return swatch_of(static_cast<int>(run % kColours)); }

std::string run_cell(size_t number, const RunRecord& run) {
  return cat("<th scope=\"row\">", swatch(number), html_text(run.name), "</th>");
}

std::string summary_section(const std::vector<RunRecord>& runs) {
  struct Column {
    const char* head;
    std::string Summary::*value;
  };
  constexpr std::array<Column, 9> kColumns = {{{"state", &Summary::state},
                                               {"#step", &Summary::step},
                                               {"#loss", &Summary::loss},
                                               {"#best held-out loss", &Summary::best_eval},
                                               {"#tokens/s", &Summary::tokens_per_second},
                                               {"#MFU", &Summary::mfu},
                                               {"#peak memory", &Summary::peak_memory},
                                               {"last checkpoint", &Summary::last_checkpoint},
                                               {"#time", &Summary::duration}}};
  std::vector<Summary> summaries;
  std::vector<Cells> rows;
  for (size_t i = 0; i < runs.size(); ++i) {
    summaries.push_back(summary_of(runs[i]));
    rows.push_back({run_cell(i, runs[i])});
  }
  std::vector<std::string> heads = {"run"};
  for (const Column& column : kColumns) {
    // What no run has, as the MFU of CPUs, is left out.
    if (std::all_of(summaries.begin(), summaries.end(),
                    [&](const Summary& s) { return (s.*column.value).empty(); }))
      continue;
    heads.emplace_back(column.head);
    for (size_t i = 0; i < runs.size(); ++i) {
      const std::string& value = summaries[i].*column.value;
      rows[i].push_back(column.head[0] == '#' ? number_cell(value) : text_cell(value));
    }
  }
  return section("summary", "Summary", table("summary of the runs", heads, rows));
}

std::string controls(const std::vector<RunRecord>& runs) {
  std::string out =
      R"(<form id="controls" class="controls" hidden aria-label="what the curves show">
<fieldset><legend>Runs</legend>)";
  for (size_t i = 0; i < runs.size(); ++i)
    out += cat("<label><input type=\"checkbox\" data-run=\"", i, "\" checked>", swatch(i),
               html_text(runs[i].name), "</label>\n");
  return out + R"(</fieldset>
<label>Along <select id="x-axis"><option value="step">steps</option><option value="time">time</option>
<option value="tokens">tokens</option></select></label>
<label>Smoothing <input id="smoothing" type="range" min="0" max="99" value="60" aria-valuetext="60 percent"></label>
<label><input id="logarithmic" type="checkbox" checked>Logarithmic axes</label>
<label>Colours <select id="theme"><option value="">as the system</option><option value="light">light</option>
<option value="dark">dark</option></select></label>
</form>
)";
}

/// A part of a run's time: what it is called, and its colour.
struct TimePart {
  std::string name;
  int colour = 0;
  double seconds = 0;
};

/// "forward_backward" as a reader wants it.
std::string phase_title(const std::string& phase) {
  if (phase == "forward_backward") return "forward and backward";
  if (phase == "launch") return "launching";
  if (phase == "device") return "on the device";
  if (phase == "other") return "rest of the step";
  return phase;
}

std::vector<TimePart> time_parts(const TimeShare& share) {
  std::vector<TimePart> parts;
  int colour = 0;
  for (const auto& [phase, seconds] : share.phases) {
    if (phase != "other") parts.push_back({phase_title(phase), colour++, seconds});
  }
  double named = 0;
  for (const TimePart& part : parts) named += part.seconds;
  parts.push_back({parts.empty() ? "steps" : phase_title("other"), colour++,
                   std::max(0.0, share.steps_s - named)});
  parts.push_back({"saves", colour++, share.saves_s});
  parts.push_back({"evaluations and other", colour++, share.other_s});
  parts.push_back({"starting", colour++, share.starting_s});
  for (TimePart& part : parts) part.colour %= kColours;
  parts.push_back({"stopped", kColourOfNothing, share.stopped_s});
  return parts;
}

std::string time_text(double seconds) {
  return seconds > 0 && seconds < 10 ? cat(fixed(seconds, 2), "s") : duration_text(seconds);
}

std::string time_section(const std::vector<RunRecord>& runs) {
  std::string out;
  for (size_t i = 0; i < runs.size(); ++i) {
    const TimeShare share = time_share(runs[i]);
    if (share.total_s() <= 0) continue;
    std::string rectangles;
    std::vector<Cells> rows;
    double x = 0;
    for (const TimePart& part : time_parts(share)) {
      const double width = 1000 * part.seconds / share.total_s();
      rectangles +=
          cat("<rect class=\"f", part.colour, "\" x=\"", fixed(x, 2), "\" width=\"",
              fixed(width, 2), "\" height=\"18\"><title>", html_text(part.name), "</title></rect>");
      x += width;
      rows.push_back(
          {cat("<th scope=\"row\">", swatch_of(part.colour), html_text(part.name), "</th>"),
           number_cell(time_text(part.seconds)),
           number_cell(cat(fixed(100 * part.seconds / share.total_s(), 1), " %"))});
    }
    out += cat(
        "<h3>", html_text(runs[i].name), "</h3><svg viewBox=\"0 0 1000 18\" width=\"100%\" ",
        "height=\"18\" preserveAspectRatio=\"none\" aria-hidden=\"true\">", rectangles, "</svg>\n",
        table(cat("where the time of ", runs[i].name, " went"), {"part", "#time", "#share"}, rows));
  }
  return out.empty() ? "" : section("time", "Where the time went", out);
}

std::string sources_section(const std::vector<RunRecord>& runs) {
  std::vector<Cells> rows;
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::vector<SourceUse> sources = sources_of(runs[i]);
    double all = 0;
    for (const SourceUse& source : sources) all += source.sequences;
    for (const SourceUse& source : sources) {
      rows.push_back({run_cell(i, runs[i]), text_cell(source.name),
                      number_cell(with_thousands(std::llround(source.sequences))),
                      number_cell(cat(fixed(100 * source.sequences / std::max(1.0, all), 1), " %")),
                      number_cell(fixed(source.epoch, 2))});
    }
  }
  if (rows.empty()) return "";
  return section("sources", "Sources of the data",
                 table("what each source of the mixture has given",
                       {"run", "source", "#sequences", "#share", "#epochs of its own"}, rows));
}

/// "; training waited 0.12 s for all": saves go on beside it. "" where that is not known.
std::string waited_text(const Columns& saves) {
  const std::vector<double>* stalls = saves.find("save_stall_s");
  if (stalls == nullptr) return "";
  double sum = 0;
  for (const double stall : *stalls) sum += std::isfinite(stall) ? stall : 0;
  return cat("; training waited ", fixed(sum, 2), " s for all");
}

std::string checkpoints_section(const std::vector<RunRecord>& runs) {
  std::vector<Cells> rows;
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const StoredCheckpoint& checkpoint : runs[i].checkpoints) {
      rows.push_back({run_cell(i, runs[i]), text_cell(checkpoint.name),
                      number_cell(with_thousands(checkpoint.step)),
                      number_cell(human_bytes(checkpoint.bytes)),
                      text_cell(utc_text(checkpoint.time))});
    }
  }
  std::string saved;
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::vector<Save>& saves = runs[i].log.saves;
    if (saves.empty()) continue;
    double sum = 0, most = 0;
    for (const Save& save : saves) {
      sum += save.seconds;
      most = std::max(most, save.seconds);
    }
    saved += cat("<p>", swatch(i), html_text(runs[i].name), ": ", saves.size(),
                 saves.size() == 1 ? " save" : " saves", ", ",
                 fixed(sum / static_cast<double>(saves.size()), 2), " s each, ", fixed(most, 2),
                 " s at most", waited_text(runs[i].metrics.saves), "</p>\n");
  }
  if (rows.empty() && saved.empty()) return "";
  return section(
      "checkpoints", "Checkpoints",
      cat(saved, rows.empty() ? "<p>None is there now.</p>"
                              : table("checkpoints that are there now",
                                      {"run", "name", "#step", "#size", "written"}, rows)));
}

std::string starts_section(const std::vector<RunRecord>& runs) {
  std::vector<Cells> rows;
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const Start& start : runs[i].log.starts) {
      rows.push_back(
          {run_cell(i, runs[i]), text_cell(start.when),
           number_cell(with_thousands(start.from_step)), text_cell(start.hosts),
           text_cell(start.devices), text_cell(start.model), text_cell(start.program),
           code_cell(start.command),
           text_cell(start.end.empty() ? "no end in the log: it runs, or was killed" : start.end)});
    }
  }
  if (rows.empty()) return "";
  return section("starts", "Starts and hardware",
                 table("each start",
                       {"run", "began", "#behind step", "hosts", "devices", "model", "program",
                        "command", "end"},
                       rows));
}

std::string settings_section(const std::vector<RunRecord>& runs) {
  std::string out;
  if (runs.size() > 1) {
    std::vector<const Settings*> all;
    std::vector<std::string> heads = {"setting"};
    for (const RunRecord& run : runs) {
      all.push_back(&run.settings);
      heads.push_back(run.name);
    }
    std::vector<Cells> rows;
    for (const SettingRow& row : differing(all)) {
      Cells cells = {cat("<th scope=\"row\"><code>", html_text(row.key), "</code></th>")};
      for (const std::string& value : row.values) cells.push_back(code_cell(value));
      rows.push_back(std::move(cells));
    }
    out += "<h3>What differs between the runs</h3>\n";
    out += rows.empty() ? std::string("<p>Nothing but run_dir.</p>\n")
                        : table("settings that differ", heads, rows);
  }
  for (size_t i = 0; i < runs.size(); ++i) {
    std::vector<Cells> rows;
    for (const SettingChange& change : changes_of(runs[i]))
      rows.push_back({number_cell(with_thousands(change.step)), code_cell(change.key),
                      code_cell(change.before), code_cell(change.after)});
    if (!rows.empty())
      out += cat("<h3>", swatch(i), html_text(runs[i].name), ": changed on the way</h3>\n",
                 table("settings changed at a restart",
                       {"#behind step", "setting", "before", "after"}, rows));
  }
  for (size_t i = 0; i < runs.size(); ++i) {
    std::vector<Cells> rows;
    for (const auto& [key, value] : runs[i].settings)
      rows.push_back({code_cell(key), code_cell(value)});
    if (!rows.empty())
      out += cat("<details><summary>All settings of ", html_text(runs[i].name), "</summary>\n",
                 table("all settings", {"setting", "value"}, rows), "</details>\n");
  }
  return out.empty() ? "" : section("settings", "Settings", out);
}

std::string warnings_section(const std::vector<RunRecord>& runs) {
  std::string out;
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunRecord& run = runs[i];
    std::string items;
    for (const std::string& text : run.problems) items += cat("<li>", html_text(text), "</li>\n");
    for (const std::string& text : run.log.last_warnings)
      items += cat("<li>", html_text(text), "</li>\n");
    if (!run.metrics.skipped.empty())
      items += cat("<li>", run.metrics.skipped.size(), " steps without an update, the last one ",
                   run.metrics.skipped.back().step, " (",
                   html_text(run.metrics.skipped.back().reason), ")</li>\n");
    if (!items.empty())
      out += cat("<h3>", swatch(i), html_text(run.name), ": ", run.log.warnings,
                 run.log.warnings == 1 ? " warning" : " warnings", " in the log</h3>\n<ul>\n",
                 items, "</ul>\n");
  }
  return out.empty() ? "" : section("warnings", "Warnings", out);
}

}  // namespace

std::string report_page(const PageHead& head, const std::vector<RunRecord>& runs) {
  const std::string style = kPageStyle;
  const std::string script = kPageScript;
  // Nothing but this style and this script may act, and nothing may be asked of any host.
  const std::string policy =
      cat("default-src 'none'; img-src data:; style-src '", content_hash(style), "'; script-src '",
          content_hash(script), "'; base-uri 'none'; form-action 'none'");
  return cat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
      "<meta http-equiv=\"Content-Security-Policy\" content=\"", policy, "\">\n",
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
      "<link rel=\"icon\" href=\"data:,\">\n<title>", html_text(head.title), "</title>\n<style>",
      style, "</style>\n</head>\n<body>\n",
      "<a class=\"skip\" href=\"#curves\">To the curves</a>\n<header><h1>", html_text(head.title),
      "</h1>\n<p class=\"soft\">", html_text(head.program), ", ", html_text(head.made),
      "</p></header>\n<main>\n", summary_section(runs),
      section("curves", "Curves",
              cat("<noscript><p>The curves need JavaScript; the tables do not.</p></noscript>\n",
                  controls(runs), "<div id=\"charts\"></div>\n",
                  "<p class=\"soft\">Triangles: checkpoints that are there. Dashed lines: "
                  "starts. Shaded: least and most where several steps share a point.</p>\n")),
      time_section(runs), sources_section(runs), checkpoints_section(runs), starts_section(runs),
      settings_section(runs), warnings_section(runs),
      "</main>\n<script type=\"application/json\" id=\"numbers\">", html_json(page_data(runs)),
      "</script>\n<script>", script, "</script>\n</body>\n</html>\n");
}

}  // namespace tptrain::report
