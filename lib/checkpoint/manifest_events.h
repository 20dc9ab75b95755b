// A manifest read by events: a value tree of all but its long list, whose elements are handed out
// one by one. So the memory it takes is that of one element, however many pieces a file, or a
// hostile one, holds.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace tptrain::checkpoint {

/// Calls `on_element` for each element of the root's lists called "pieces" and "tensors", in order;
/// returns the rest, where those lists are empty. Throws Refused: no JSON, a key given twice,
/// nested deeper than a manifest is, a number that is no whole one.
nlohmann::json read_manifest_events(std::string_view text,
                                    const std::function<void(nlohmann::json&&)>& on_element);

}  // namespace tptrain::checkpoint
