// The files beside the weights: what a run keeps of the model and the tokenizer it began with
// (config.json, generation_config.json, the tokenizer's), so that its checkpoints can be used and
// exported when the originals have moved. Copies bytes; knows nothing of what is in them.
#pragma once

#include <filesystem>
#include <string>

namespace tptrain::checkpoint {

/// run_dir/model_files.
std::filesystem::path model_files_of_run(const std::filesystem::path& run_dir);
/// The same from a checkpoint within run_dir/checkpoints; it need not exist.
std::filesystem::path model_files_of_checkpoint(const std::filesystem::path& checkpoint);

/// Copies config.json and generation_config.json of `model_path` ("" where the model is of the run
/// file) and the files of `tokenizer` (a directory, a file, or "bytes", which has none) to
/// model_files_of_run, and as its chat_template.jinja the file `chat_template` ("": the tokenizer's
/// own counts), each atomically; equal ones are left alone. Nothing is made where there is
/// nothing to copy. Throws CheckpointError where a copy cannot be written, DataError where an
/// original cannot be read.
void keep_model_files(const std::filesystem::path& run_dir, const std::string& model_path,
                      const std::string& tokenizer, const std::string& chat_template);

}  // namespace tptrain::checkpoint
