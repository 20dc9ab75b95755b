// Hexadecimal digits, lower-case except where a format wants capitals.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tptrain {

enum class HexCase { lower, upper };

/// The last `digits` digits of `value`, with leading zeros.
std::string to_hex(uint64_t value, size_t digits, HexCase letters = HexCase::lower);
/// Two digits a byte, in the order of the bytes.
std::string to_hex(std::string_view bytes);
/// The bytes of `hex`, an even number of lower-case digits.
std::string bytes_of_hex(std::string_view hex);
/// Whether it is that many lower-case digits.
bool is_hex(std::string_view text, size_t digits);

}  // namespace tptrain
