// How tokens become the rows of a batch: what a batch is, and one row of it from a range of a token
// file. Which ranges, and in which order, is for batch_sampler.h and sequential_batches.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/token_store.h"
#include "formats/token_file.h"

namespace tptrain::data {

/// stream: documents end to end; best_fit: whole documents, several a sequence (best_fit.h); none:
/// a document is a sequence of its own.
using config::Packing;

/// on: documents packed into one row do not see each other.
enum class DocumentMask { off, on };

/// One micro-batch of one dp rank, row-major [batch][seq_length].
struct HostBatch {
  int64_t batch = 0;
  int64_t seq_length = 0;
  std::vector<int64_t> ids;
  std::vector<int64_t> targets;  // the next token; -100: not counted
  /// Where documents that do not see each other end, rising: positions of all rows end to end, the
  /// end of every row among them. Empty: no mask, each row sees itself.
  std::vector<int64_t> document_ends = {};
  int64_t step = 0;          // whose global batch this is a part of
  int64_t first_sample = 0;  // number of row 0 within that global batch
  /// 8-byte hash of ids, targets and ends of documents, to compare across tp ranks.
  uint64_t hash() const;
  /// With document_ends: of each token in its document.
  std::vector<int64_t> positions() const;
  int64_t target_tokens() const;
  int64_t documents() const { return static_cast<int64_t>(document_ends.size()); }
};

/// Rows of padding alone: ids 0 without a target.
HostBatch padding(int64_t rows, int64_t seq_length);

/// Tokens [begin, end).
struct TokenRange {
  int64_t begin = 0;
  int64_t end = 0;
};

/// Maps the token file. Throws DataError: missing, damaged, or another than was prepared.
formats::TokenFile open_tokens(const PreparedTokens& tokens);

TokenRange document_range(const formats::TokenFileHeader& header, int64_t document);
int64_t documents_longer_than(const formats::TokenFileHeader& header, int64_t tokens);

/// Tokens of one document that lie in one row.
struct Piece {
  int64_t begin = 0;  // in the token file
  int32_t tokens = 0;
  bool goes_on = false;  // the label of the token behind it is the target of its last
};

/// Row `row` from its piece at place `at`: the ids, and beside each the label of the token after
/// it.
void fill_piece(const formats::TokenFile& file, const Piece& piece, HostBatch& batch, int64_t row,
                int64_t at);
/// Row `row` from the first tokens of `range`, which is not empty: as many as fit. The rest of the
/// row stays.
void fill_row(const formats::TokenFile& file, const TokenRange& range, HostBatch& batch,
              int64_t row);

/// Row `row` from these pieces one behind the other; masked, where documents are told apart.
void fill_pieces(const formats::TokenFile& file, std::span<const Piece> pieces, DocumentMask mask,
                 HostBatch& batch, int64_t row);

/// Masks row `row`, filled from `range`: its documents, pieces of documents and padding end where
/// document_ends then says, and the last token of a document has no target. Rows in order, each
/// once.
void mask_documents(const formats::TokenFileHeader& header, const TokenRange& range,
                    HostBatch& batch, int64_t row);
/// Likewise row `row`, filled from these pieces one behind the other.
void mask_pieces(std::span<const Piece> pieces, HostBatch& batch, int64_t row);

}  // namespace tptrain::data
