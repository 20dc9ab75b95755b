// What makes two models two.
#pragma once

#include <string>

#include "model/decoder_config.h"

namespace tptrain::model {

/// "hidden_size: 16 -> 32; ...", in config.json's names; "" where the two are equal.
std::string differences(const DecoderConfig& before, const DecoderConfig& now);

}  // namespace tptrain::model
