// tptrain inspect for files that tptrain did not write.
#pragma once

#include <string>

namespace tptrain::apps {

/// Whether PATH is a .safetensors file, or a directory with config.json or weights of a Hugging
/// Face model that is no checkpoint.
bool is_huggingface_path(const std::string& path);

/// Checks all of it, then prints facts and the table of tensors, or one JSON object. Throws Error
/// with the exit code of a checkpoint (4), naming the rule that is broken.
void inspect_huggingface(const std::string& path, bool json);

}  // namespace tptrain::apps
