// What a model is, as rows of a table: the fields of its config.json that a reader looks for.
#pragma once

#include <vector>

#include "commands/print_table.h"
#include "model/decoder_config.h"

namespace tptrain::apps {

/// Two cells a row: what it is, and how large.
std::vector<Line> model_summary(const model::DecoderConfig& config);

}  // namespace tptrain::apps
