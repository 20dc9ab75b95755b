#include "data/packing.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/text.h"
#include "data/permutation.h"

namespace tptrain::data {

HostBatch padding(int64_t rows, int64_t seq_length) {
  const auto size = static_cast<size_t>(rows * seq_length);
  return {.batch = rows,
          .seq_length = seq_length,
          .ids = std::vector<int64_t>(size),
          .targets = std::vector<int64_t>(size, formats::kNoLabel)};
}

uint64_t HostBatch::hash() const {
  uint64_t hash = mix64(mix64(static_cast<uint64_t>(batch)) ^ static_cast<uint64_t>(seq_length));
  for (const int64_t id : ids) hash = mix64(hash ^ static_cast<uint64_t>(id));
  for (const int64_t target : targets) hash = mix64(hash ^ static_cast<uint64_t>(target));
  for (const int64_t end : document_ends) hash = mix64(hash ^ static_cast<uint64_t>(end));
  return hash;
}

std::vector<int64_t> HostBatch::positions() const {
  std::vector<int64_t> positions(ids.size());
  auto begin = positions.begin();
  for (const int64_t end : document_ends) {
    std::iota(begin, positions.begin() + end, int64_t{0});
    begin = positions.begin() + end;
  }
  return positions;
}

int64_t HostBatch::target_tokens() const {
  return static_cast<int64_t>(targets.size()) -
         std::count(targets.begin(), targets.end(), formats::kNoLabel);
}

formats::TokenFile open_tokens(const PreparedTokens& tokens) {
  formats::TokenFile file = tokens.indexed.empty()
                                ? formats::TokenFile(tokens.path)
                                : formats::TokenFile::indexed(tokens.indexed, tokens.vocab_size);
  if (file.header().identity == tokens.identity && file.tokens() == tokens.tokens) return file;
  throw DataError(problem(cat("the token file holds ", file.tokens(), " tokens of identity ",
                              file.header().identity))
                      .at(tokens.path.string())
                      .must(cat("hold the ", tokens.tokens, " tokens of identity ", tokens.identity,
                                " that were prepared for this run"))
                      .remedy("Check that every host sees the same folder, and that no other run "
                              "writes to it."));
}

TokenRange document_range(const formats::TokenFileHeader& header, int64_t document) {
  const auto at = static_cast<size_t>(document);
  return {document == 0 ? 0 : header.document_ends[at - 1], header.document_ends[at]};
}

int64_t documents_longer_than(const formats::TokenFileHeader& header, int64_t tokens) {
  int64_t count = 0;
  int64_t begin = 0;
  for (const int64_t end : header.document_ends) {
    if (end - begin > tokens) ++count;
    begin = end;
  }
  return count;
}

void fill_piece(const formats::TokenFile& file, const Piece& piece, HostBatch& batch, int64_t row,
                int64_t at) {
  const int64_t here = row * batch.seq_length + at;
  const int64_t targets = piece.goes_on ? piece.tokens : piece.tokens - 1;
  file.copy(piece.begin, {batch.ids.data() + here, static_cast<size_t>(piece.tokens)});
  file.copy_labels(piece.begin + 1, {batch.targets.data() + here, static_cast<size_t>(targets)});
}

void fill_row(const formats::TokenFile& file, const TokenRange& range, HostBatch& batch,
              int64_t row) {
  const int64_t tokens = range.end - range.begin;
  fill_piece(file,
             {.begin = range.begin,
              .tokens = static_cast<int32_t>(std::min(batch.seq_length, tokens)),
              .goes_on = tokens > batch.seq_length},
             batch, row, 0);
}

void fill_pieces(const formats::TokenFile& file, std::span<const Piece> pieces, DocumentMask mask,
                 HostBatch& batch, int64_t row) {
  int64_t at = 0;
  for (const Piece& piece : pieces) {
    fill_piece(file, piece, batch, row, at);
    at += piece.tokens;
  }
  if (mask == DocumentMask::on) mask_pieces(pieces, batch, row);
}

void mask_documents(const formats::TokenFileHeader& header, const TokenRange& range,
                    HostBatch& batch, int64_t row) {
  const int64_t here = row * batch.seq_length;
  const int64_t tokens = std::min(batch.seq_length, range.end - range.begin);
  const std::vector<int64_t>& ends = header.document_ends;
  int64_t last = here;
  const auto end_document = [&](int64_t at) {
    if (at > last) batch.document_ends.push_back(at);
    last = at;
  };
  for (auto end = std::upper_bound(ends.begin(), ends.end(), range.begin);
       end != ends.end() && *end <= range.begin + tokens; ++end) {
    const int64_t at = here + *end - range.begin;
    batch.targets[static_cast<size_t>(at - 1)] = formats::kNoLabel;
    end_document(at);
  }
  end_document(here + tokens);
  end_document(here + batch.seq_length);  // of the padding, if there is any
}

void mask_pieces(std::span<const Piece> pieces, HostBatch& batch, int64_t row) {
  int64_t end = row * batch.seq_length;
  for (const Piece& piece : pieces) batch.document_ends.push_back(end += piece.tokens);
  const int64_t row_end = (row + 1) * batch.seq_length;
  if (end < row_end) batch.document_ends.push_back(row_end);  // of the padding
}

}  // namespace tptrain::data
