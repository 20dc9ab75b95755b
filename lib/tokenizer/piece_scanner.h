// The regular expressions of GPT-2, Qwen2 and Llama-3 as hand-written scanners: a tenth of a regex
// engine's time. They cut every text exactly as Oniguruma does (test unit_tokenizer_scanner).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tptrain::tokenizer {

enum class KnownPattern {
  none,
  gpt2,   // what ByteLevel's use_regex means
  qwen2,  // each digit alone
  llama3  // up to three digits
};

extern const char kGpt2Pattern[];
extern const char kQwen2Pattern[];
extern const char kLlama3Pattern[];

KnownPattern known_pattern(std::string_view regex);

/// Where the piece that begins at `begin` < text.size() ends. These patterns leave nothing out: the
/// next piece begins there. `classes` is character_classes().
size_t piece_end(KnownPattern pattern, std::string_view text, size_t begin,
                 const std::vector<uint8_t>& classes);

}  // namespace tptrain::tokenizer
