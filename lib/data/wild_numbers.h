// What Python's json writes and reads and JSON or 64 bits do not hold.
#pragma once

#include <string>
#include <string_view>

namespace tptrain::data {

/// Copies JSON with the numbers that are too large for 64 bits or a double, and NaN, Infinity and
/// -Infinity, in quotes; false where there are none. What else is wrong stays wrong.
bool quote_wild_numbers(std::string_view json, std::string& quoted);

}  // namespace tptrain::data
