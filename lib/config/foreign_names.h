// What the names and words of other trainers are called here: Hugging Face's Trainer, axolotl,
// torchtitan, DeepSpeed, Megatron-LM. For hints alone: nothing is read under these names. Private
// to this folder and its tests.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "config/keys.h"

namespace tptrain::config {

/// A key or section of ours and what to mind about it, or, with an empty `path`, why there is none.
struct Meaning {
  std::string path;
  std::string note;
};

/// "gradient_accumulation_steps", or with the section it stands in, "training.steps" -> meaning. In
/// lower case, with _ for -.
const std::map<std::string, Meaning>& foreign_names();

/// What to say of `name`, which an entry of the list `list` ("data.train[0]", "data.eval.wiki[1]")
/// does not have; "" where nothing is known of it.
std::string hint_for_member(const std::string& list, const std::string& name);

/// What to say of `word`, which `key` does not allow; "" where nothing is known of it.
std::string hint_for_word(const Key& key, const std::string& word);

}  // namespace tptrain::config
