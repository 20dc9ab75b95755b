// The pieces of a manifest in its two formats. Private to the reading and writing of manifests.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"

namespace tptrain::checkpoint {

/// Adds the piece that an element of format 1's "pieces" is. Throws Refused. After this every
/// product of extents of the piece fits into int64.
void add_piece(const nlohmann::json& element, std::vector<ManifestPiece>& pieces);
/// The same for an element of format 2's "tensors": all pieces of one tensor.
void add_tensor(const nlohmann::json& element, std::vector<ManifestPiece>& pieces);
/// What no piece can tell by itself: files that there are, each key once. Throws Refused.
void check_pieces(const std::vector<ManifestPiece>& pieces, int64_t file_count);

/// Format 2's "tensors", as canonical JSON.
std::string tensors_text(const std::vector<ManifestPiece>& pieces);

}  // namespace tptrain::checkpoint
