// What a name that a run file does not have may mean: one of another trainer, of another section,
// or a typing error.
#pragma once

#include <string>

namespace tptrain::config {

/// What to say of `path`, which is no key: where a known key or section of that name stands, what
/// the name means elsewhere, the nearest one to a typing error; "" where nothing is known of it.
/// `value` is what it was given, where that is one word: `save: epoch` asks for another key than
/// `save: runs/a`.
std::string hint_for_name(const std::string& path, const std::string& value = "");
/// The same without typing errors: what a name below a section that is itself unknown can mean.
std::string exact_hint_for_name(const std::string& path, const std::string& value = "");
/// What to say of one of our sections that was given a word: `eval: epoch`; "" where nothing is
/// known of that.
std::string hint_for_section(const std::string& path, const std::string& value);

}  // namespace tptrain::config
