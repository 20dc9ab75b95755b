// What a name that a run file does not have may mean: one of another trainer, of another section,
// or a typing error.
#pragma once

#include <string>

namespace tptrain::config {

/// What to say of `path`, which is no key: where a known key or section of that name stands, what
/// the name means elsewhere, the nearest one to a typing error; "" where nothing is known of it.
std::string hint_for_name(const std::string& path);
/// The same without typing errors: what a name below a section that is itself unknown can mean.
std::string exact_hint_for_name(const std::string& path);

}  // namespace tptrain::config
