// optimizer.groups: what an entry may hold, every message that one is refused with, and --set.
#include <utility>
#include <vector>

#include "config_test.h"

namespace tptrain::testing {
namespace {

using Groups = std::vector<config::ParameterGroup>;

// The minimal file has four lines: the list begins at line 7.
std::string with_groups(const std::string& lines) {
  return kMinimal + "optimizer:\n  groups:\n" + lines;
}

TEST_CASE("groups are read in their order, what is left out stays open") {
  const config::RunConfig config =
      parse(with_groups("    - match: \"*.bias\"\n      weight_decay: 0.1\n"
                        "    - {match: 'model.layers.?.*', learning_rate_scale: 0.5}\n    - match: "
                        "lm_head.weight\n"));
  CHECK(config.optimizer.groups ==
        Groups{{.match = "*.bias", .weight_decay = 0.1},
               {.match = "model.layers.?.*", .weight_decay = {}, .learning_rate_scale = 0.5},
               {.match = "lm_head.weight", .weight_decay = {}}});
  CHECK(parse(kMinimal + "optimizer: {groups: []}\n").optimizer.groups.empty());
}

TEST_CASE("a wrong entry is refused at its own line, with a remedy") {
  const std::string form = "{match: GLOB, weight_decay: NUMBER, learning_rate_scale: NUMBER}";
  const std::string number = "it must be a finite number, such as 0.001 or 1e-3.";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"weigth_decay: 0",
       "9:7: optimizer.groups[1].weigth_decay is no known key.\n"
       "  Did you mean optimizer.groups[1].weight_decay?"},
      {"betas: [0, 0]",
       "9:7: optimizer.groups[1].betas is no known key.\n  optimizer.groups[1] has "
       "the keys match, weight_decay, learning_rate_scale."},
      {"weight_decay: -0.1",
       "9:21: optimizer.groups[1].weight_decay is -0.1: it must be at least 0.\n"
       "  Write 0 for no decay, or leave it out for the default rule."},
      {"learning_rate_scale: -1",
       "9:28: optimizer.groups[1].learning_rate_scale is -1.0: it must be at least 0.\n"
       "  Write 0 to freeze these tensors, or leave it out for 1."},
      {"weight_decay: none", "9:21: optimizer.groups[1].weight_decay is none: " + number},
      {"weight_decay: \"0\"", "9:21: optimizer.groups[1].weight_decay is the text \"0\": " +
                                  number + "\n  Quotes make it a text: leave them out."},
      {"weight_decay: ~", "9:21: optimizer.groups[1].weight_decay is null: " + number},
      {"learning_rate_scale: [1]",
       "9:28: optimizer.groups[1].learning_rate_scale is a list: " + number},
      {"match: c",
       "9:7: optimizer.groups[1].match is given twice, first at run.yaml:8:7.\n"
       "  Remove one of the two."},
      {"[a]: c", "9:7: optimizer.groups[1] has a list as a key: it must be the name of a key."},
  };
  for (const auto& [line, message] : cases) {
    CHECK(refusal(with_groups("    - match: a\n    - match: b\n      " + line + "\n")) ==
          "config error: run.yaml:" + message);
  }
  const std::string remedy = "\n  For example match: \"*.bias\".";
  CHECK(refusal(with_groups("    - weight_decay: 0\n")) ==
        "config error: run.yaml:7:7: optimizer.groups[0] has no match: it must name the tensors it "
        "is for." +
            remedy);
  CHECK(refusal(with_groups("    - match: \"\"\n")) ==
        "config error: run.yaml:7:14: optimizer.groups[0].match is \"\": it must be a glob over "
        "tensor names." +
            remedy);
  CHECK(refusal(with_groups("    - match: [a]\n")) ==
        "config error: run.yaml:7:14: optimizer.groups[0].match is a list: it must be a glob over "
        "tensor names." +
            remedy);
  CHECK(refusal(with_groups("    - lm_head.weight\n")) ==
        "config error: run.yaml:7:7: optimizer.groups[0] is lm_head.weight: it must be " + form +
            ".\n  Write {match: \"lm_head.weight\", ...}.");
  CHECK(refusal(with_groups("    - [a]\n")) ==
        "config error: run.yaml:7:7: optimizer.groups[0] is a list: it must be " + form + ".");
  CHECK(refusal(with_groups("    match: a\n")) ==
        "config error: run.yaml:7:5: optimizer.groups is a mapping: it must be a list of " + form +
            ".\n  Put - before its first key, or [ ] around it.");
  CHECK(refusal(kMinimal + "optimizer: {groups: none}\n") ==
        "config error: run.yaml:5:21: optimizer.groups is none: it must be a list of " + form +
            ".");
  // A glob without quotes is an alias to YAML.
  check_contains(refusal(with_groups("    - match: *.bias\n")),
                 "run.yaml:7:14: this is not valid YAML");
  check_contains(refusal(with_groups("    - match: *.bias\n")), "quote texts that hold");
}

TEST_CASE("every wrong entry is named at once") {
  const std::string message = refusal(with_groups(
      "    - {match: a, weight_decay: -1, learning_rate_scale: -2}\n    - {match: \"\"}\n"));
  for (const std::string part : {"run.yaml:7:32: optimizer.groups[0].weight_decay is -1.0",
                                 "run.yaml:7:57: optimizer.groups[0].learning_rate_scale is -2.0",
                                 "run.yaml:8:15: optimizer.groups[1].match is \"\""}) {
    check_contains(message, part);
  }
}

TEST_CASE("--set takes the place of the whole list") {
  const std::string text = with_groups("    - match: a\n      weight_decay: 1\n    - match: b\n");
  const std::string set = "optimizer.groups=[{match: \"*.bias\", weight_decay: 0.5}]";
  CHECK(parse(text, {set}).optimizer.groups == Groups{{.match = "*.bias", .weight_decay = 0.5}});
  CHECK(parse(text, {"optimizer.groups=[]"}).optimizer.groups.empty());
  const auto parsed = config::parse_run_config(text, "run.yaml", {set});
  CHECK(parsed.places.at("optimizer.groups[0].weight_decay") == "--set " + set);
  CHECK(parsed.places.count("optimizer.groups[1].match") == 0);
  const std::string negative = "optimizer.groups=[{match: c, weight_decay: -1}]";
  check_contains(refusal(text, {negative}),
                 "config error: --set " + negative + ": optimizer.groups[0].weight_decay is -1.0");
  check_contains(refusal(text, {"optimizer.groups.0.match=c"}),
                 "optimizer.groups is one value: set it as a whole, --set optimizer.groups=...");
}

TEST_CASE("groups made in code are checked alike") {
  config::RunConfig config = parse(kMinimal);
  config.optimizer.groups = {{.match = "a", .weight_decay = -1.0}};
  const auto problems = config::check_sections(config, {});
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].where.empty());
  check_contains(problems[0].text(), "optimizer.groups[0].weight_decay is -1.0");
}

}  // namespace
}  // namespace tptrain::testing
