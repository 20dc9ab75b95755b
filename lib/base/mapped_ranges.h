// Which file lies where in memory: reading a page of a mapped file that was cut, or whose storage
// fails, is a SIGBUS and no error code. Where the address is one of these the process says which
// file it was and ends with that file's exit code; any other SIGBUS means what it did before.
#pragma once

#include <cstddef>
#include <span>

#include "base/error.h"

namespace tptrain {

/// `path` is copied (its first 500 bytes). A map that finds no place in the list (there are
/// thousands) is read all the same; only its SIGBUS will name no file.
void add_mapped_range(const void* begin, size_t bytes, const char* path, ExitCode code);
void remove_mapped_range(const void* begin);

/// Pages of a mapped file that this process has read stay counted as its memory as long as the map
/// stands, so whoever goes over a whole file lets go of what is behind. The pages of `bytes`, begun
/// ones too, are read anew where they are touched again. Advice: where the kernel does not take it,
/// they are merely counted for longer.
void release_mapped(std::span<const std::byte> bytes);

}  // namespace tptrain
