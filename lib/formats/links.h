// Symbolic links as the Hugging Face hub's cache makes them (snapshots/X/model.safetensors ->
// ../../blobs/...): followed like any other, but one that leads nowhere gets a message of its own.
#pragma once

#include <filesystem>

namespace tptrain::formats {

/// Throws DataError where `path` is a symbolic link that dangles or leads in a circle. Says nothing
/// of a path that is no link: opening it will.
void refuse_broken_link(const std::filesystem::path& path);

}  // namespace tptrain::formats
