// Arguments behind a verb -> its command: one file a verb in this folder.
#pragma once

#include <string>
#include <vector>

#include "cli.h"

namespace tptrain::apps {

Command parse_train(const std::vector<std::string>& arguments);
Command parse_launch(const std::vector<std::string>& arguments);
Command parse_plan(const std::vector<std::string>& arguments);
Command parse_generate(const std::vector<std::string>& arguments);
Command parse_evaluate(const std::vector<std::string>& arguments);
Command parse_prepare(const std::vector<std::string>& arguments);
Command parse_export(const std::vector<std::string>& arguments);
Command parse_inspect(const std::vector<std::string>& arguments);
Command parse_verify(const std::vector<std::string>& arguments);
Command parse_report(const std::vector<std::string>& arguments);
Command parse_watch(const std::vector<std::string>& arguments);
Command parse_doctor(const std::vector<std::string>& arguments);
Command parse_fetch(const std::vector<std::string>& arguments);
Command parse_tokenize(const std::vector<std::string>& arguments);
Command parse_schema(const std::vector<std::string>& arguments);

}  // namespace tptrain::apps
