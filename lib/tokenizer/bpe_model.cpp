#include "tokenizer/bpe_model.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "base/error.h"
#include "base/hex.h"
#include "base/text.h"
#include "base/utf8.h"
#include "tokenizer/code_points.h"
#include "tokenizer/hashing.h"
#include "tokenizer/normalizer.h"

namespace tptrain::tokenizer {

namespace {

constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();
constexpr uint64_t kFreePair = std::numeric_limits<uint64_t>::max();
// Below it, looking through all pairs is faster than keeping a heap of them.
constexpr size_t kShortPiece = 96;

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

bool has_metaspace_inside(std::string_view token) {
  for (size_t found = token.find(kMetaspace); found != token.npos;
       found = token.find(kMetaspace, found + kMetaspace.size())) {
    if (found > 0 && !token.substr(0, found).ends_with(kMetaspace)) return true;
  }
  return false;
}

// C0, C1 and F5 to FF are in no UTF-8 text.
bool occurs_in_utf8(int byte) { return byte < 0xC0 || (byte > 0xC1 && byte < 0xF5); }

}  // namespace

Vocabulary::Vocabulary() : slots_(16, -1) {}

void Vocabulary::reserve(size_t entries) {
  tokens_.reserve(entries);
  ids_.reserve(entries);
  entry_of_id_.reserve(entries);
  if (2 * entries > slots_.size()) grow(std::bit_ceil(2 * entries));
}

void Vocabulary::grow(size_t slots) {
  slots_.assign(slots, -1);
  for (size_t entry = 0; entry < tokens_.size(); ++entry) {
    size_t slot = hash_bytes(tokens_[entry], hash_seed()) & (slots - 1);
    while (slots_[slot] >= 0) slot = (slot + 1) & (slots - 1);
    slots_[slot] = static_cast<int32_t>(entry);
  }
}

bool Vocabulary::add(std::string token, int32_t id) {
  if (find(token) >= 0 || has(id)) return false;
  if (2 * (tokens_.size() + 1) > slots_.size()) grow(2 * slots_.size());
  const auto entry = static_cast<int32_t>(tokens_.size());
  size_t slot = hash_bytes(token, hash_seed()) & (slots_.size() - 1);
  while (slots_[slot] >= 0) slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = entry;
  if (id >= end_id()) entry_of_id_.resize(static_cast<size_t>(id) + 1, -1);
  entry_of_id_[id] = entry;
  tokens_.push_back(std::move(token));
  ids_.push_back(id);
  return true;
}

int32_t Vocabulary::find(std::string_view token) const {
  size_t slot = hash_bytes(token, hash_seed()) & (slots_.size() - 1);
  for (; slots_[slot] >= 0; slot = (slot + 1) & (slots_.size() - 1)) {
    if (tokens_[slots_[slot]] == token) return ids_[slots_[slot]];
  }
  return -1;
}

bool Vocabulary::has(int32_t id) const { return id >= 0 && id < end_id() && entry_of_id_[id] >= 0; }

const std::string& Vocabulary::token(int32_t id) const {
  static const std::string none;
  return has(id) ? tokens_[entry_of_id_[id]] : none;
}

// A table of pieces and their ids, each slot one cache line; a new piece takes the slot of an old
// one, so that the table never grows. Longer pieces are rarely met twice.
class BpeModel::Scratch {
 public:
  struct alignas(64) Entry {
    uint64_t hash = 0;
    uint8_t size = 0;
    char piece[23];
    int32_t count = 0;
    int32_t ids[7];
  };
  static constexpr size_t kSlots = 1u << 15;

  Scratch() : entries(kSlots) {}
  std::vector<Entry> entries;
  std::vector<int32_t> symbols;
  std::vector<Joined> pairs;
  std::vector<int32_t> previous, next;
  std::vector<uint64_t> heap;
};

void BpeModel::ScratchDelete::operator()(Scratch* scratch) const { delete scratch; }

std::unique_ptr<BpeModel::Scratch, BpeModel::ScratchDelete> BpeModel::new_scratch() {
  return std::unique_ptr<Scratch, ScratchDelete>(new Scratch);
}

size_t BpeModel::bytes_of(const Scratch& scratch) {
  return (scratch.symbols.capacity() + scratch.previous.capacity() + scratch.next.capacity()) *
             sizeof(int32_t) +
         scratch.pairs.capacity() * sizeof(Joined) + scratch.heap.capacity() * sizeof(uint64_t);
}

BpeModel::BpeModel(Vocabulary vocabulary, const std::vector<Merge>& merges, BpeOptions options)
    : vocabulary_(std::move(vocabulary)), options_(std::move(options)) {
  pairs_.assign(std::bit_ceil(std::max<size_t>(16, 2 * merges.size())), {kFreePair, {kNoRank, -1}});
  bool inside = false;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    const uint64_t pair = pair_of(merge.left, merge.right);
    size_t slot = hash_pair(pair, hash_seed()) & (pairs_.size() - 1);
    while (pairs_[slot].pair != kFreePair && pairs_[slot].pair != pair) {
      slot = (slot + 1) & (pairs_.size() - 1);
    }
    pairs_[slot] = {pair, {static_cast<uint32_t>(rank), merge.product}};
    inside = inside || has_metaspace_inside(vocabulary_.token(merge.product));
  }
  metaspace_begins_ = !inside && vocabulary_.find(kMetaspace) >= 0 &&
                      options_.continuing_subword_prefix.empty() &&
                      options_.end_of_word_suffix.empty();
  id_of_byte_.resize(128);
  for (int c = 0; c < 128; ++c) {
    const char character = static_cast<char>(c);
    id_of_byte_[c] = vocabulary_.find(std::string_view(&character, 1));
  }
  if (options_.byte_fallback) {
    for (uint64_t byte = 0; byte < 256; ++byte)
      fallback_.push_back(vocabulary_.find(cat("<0x", to_hex(byte, 2, HexCase::upper), ">")));
  }
}

bool BpeModel::use_bytes() {
  if (!options_.continuing_subword_prefix.empty() || !options_.end_of_word_suffix.empty()) {
    return false;
  }
  std::vector<int32_t> ids(256, -1);
  for (int byte = 0; byte < 256; ++byte) {
    std::string character;
    append_utf8(character, character_of_byte(static_cast<unsigned char>(byte)));
    ids[byte] = vocabulary_.find(character);
    if (ids[byte] < 0 && occurs_in_utf8(byte)) return false;
  }
  bytes_ = true;
  metaspace_begins_ = false;  // a metaspace is three bytes here
  id_of_byte_ = std::move(ids);
  if (!options_.ignore_merges) return true;
  raw_.emplace();
  raw_->reserve(vocabulary_.size());
  for (int32_t id = 0; id < vocabulary_.end_id(); ++id) {
    const std::string& token = vocabulary_.token(id);
    std::string raw;
    bool all_bytes = !token.empty();
    for (size_t pos = 0; all_bytes && pos < token.size();) {
      const int byte = byte_of_character(next_code_point(token, pos));
      all_bytes = byte >= 0;
      raw += static_cast<char>(byte);
    }
    if (all_bytes) raw_->add(std::move(raw), id);
  }
  return true;
}

BpeModel::Joined BpeModel::joined(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  size_t slot = hash_pair(pair, hash_seed()) & (pairs_.size() - 1);
  while (pairs_[slot].pair != pair) {
    if (pairs_[slot].pair == kFreePair) return {kNoRank, -1};
    slot = (slot + 1) & (pairs_.size() - 1);
  }
  return pairs_[slot].joined;
}

void BpeModel::encode(std::string_view piece, std::vector<int32_t>& ids, Scratch& scratch) const {
  if (piece.size() > std::numeric_limits<int32_t>::max()) {  // places in it have 32 bits
    throw DataError(problem(cat("piece of ", human_bytes(static_cast<int64_t>(piece.size()))))
                        .at("tokenizer")
                        .must("be shorter than 2 GiB")
                        .remedy("Cut the text into documents."));
  }
  if (!metaspace_begins_) return encode_cached(piece, ids, scratch, options_.ignore_merges);
  if (options_.ignore_merges) {
    if (const int32_t id = vocabulary_.find(piece); id >= 0) return ids.push_back(id);
  }
  // No merge joins a metaspace to another character before it, and it is known, so that no run of
  // unknown characters goes through it either: what is before it can be encoded alone.
  size_t begin = 0;
  while (begin < piece.size()) {
    size_t end = begin;
    while (piece.substr(end).starts_with(kMetaspace)) end += kMetaspace.size();
    end = std::min(piece.find(kMetaspace, end), piece.size());
    encode_cached(piece.substr(begin, end - begin), ids, scratch, false);
    begin = end;
  }
}

void BpeModel::encode_cached(std::string_view piece, std::vector<int32_t>& ids, Scratch& scratch,
                             bool whole_may_be_entry) const {
  Scratch::Entry* entry = nullptr;
  uint64_t hash = 0;
  if (piece.size() <= sizeof entry->piece) {
    hash = hash_bytes(piece, hash_seed());
    entry = &scratch.entries[hash & (Scratch::kSlots - 1)];
    if (entry->hash == hash && entry->size == piece.size() &&
        std::memcmp(entry->piece, piece.data(), piece.size()) == 0) {
      ids.insert(ids.end(), entry->ids, entry->ids + entry->count);
      return;
    }
  }
  std::vector<int32_t>& symbols = scratch.symbols;
  symbols.clear();
  if (whole_may_be_entry) {
    const int32_t id = raw_ ? raw_->find(piece) : vocabulary_.find(piece);
    if (id >= 0) symbols.push_back(id);
  }
  if (symbols.empty()) {
    append_symbols(piece, symbols);
    if (symbols.size() > 1) {
      symbols.size() <= kShortPiece ? merge_short(symbols, scratch) : merge_long(symbols, scratch);
    }
  }
  ids.insert(ids.end(), symbols.begin(), symbols.end());
  if (entry != nullptr && symbols.size() <= std::size(entry->ids)) {
    entry->hash = hash;
    entry->size = static_cast<uint8_t>(piece.size());
    std::memcpy(entry->piece, piece.data(), piece.size());
    entry->count = static_cast<int32_t>(symbols.size());
    std::copy(symbols.begin(), symbols.end(), entry->ids);
  }
}

int32_t BpeModel::unknown_id(std::string_view character) const {
  const int32_t id = vocabulary_.find(*options_.unk_token);
  if (id >= 0) return id;
  throw DataError(problem(cat("the character ", character,
                              " is not in the vocabulary, and neither "
                              "is unk_token ",
                              *options_.unk_token))
                      .at("tokenizer")
                      .remedy("Leave such characters out, or give model.vocab the unknown token."));
}

void BpeModel::append_symbols(std::string_view piece, std::vector<int32_t>& symbols) const {
  if (bytes_) {
    for (const char c : piece) symbols.push_back(id_of_byte_[static_cast<unsigned char>(c)]);
    return;
  }
  const bool plain =
      options_.continuing_subword_prefix.empty() && options_.end_of_word_suffix.empty();
  int32_t pending_unknown = -1;
  const auto flush = [&] {
    if (pending_unknown >= 0) symbols.push_back(pending_unknown);
    pending_unknown = -1;
  };
  std::string spelled;
  for (size_t pos = 0; pos < piece.size();) {
    const size_t begin = pos;
    const uint32_t c = next_code_point(piece, pos);
    std::string_view character = piece.substr(begin, pos - begin);
    int32_t id;
    if (plain) {
      id = c < 128 ? id_of_byte_[c] : vocabulary_.find(character);
    } else {
      spelled.clear();
      if (begin > 0) spelled += options_.continuing_subword_prefix;
      spelled += character;
      if (pos == piece.size()) spelled += options_.end_of_word_suffix;
      character = spelled;
      id = vocabulary_.find(character);
    }
    if (id >= 0) {
      flush();
      symbols.push_back(id);
      continue;
    }
    if (options_.byte_fallback) {
      const auto known = [&](char byte) {
        return fallback_[static_cast<unsigned char>(byte)] >= 0;
      };
      if (std::all_of(character.begin(), character.end(), known)) {
        // An unknown character before it stays pending and comes behind the bytes, as in the
        // library.
        for (const char byte : character) {
          symbols.push_back(fallback_[static_cast<unsigned char>(byte)]);
        }
        continue;
      }
    }
    if (!options_.unk_token) continue;  // the library leaves the character out
    if (!options_.fuse_unk) flush();
    if (pending_unknown < 0) pending_unknown = unknown_id(character);
  }
  flush();
}

void BpeModel::merge_short(std::vector<int32_t>& symbols, Scratch& scratch) const {
  std::vector<Joined>& pairs = scratch.pairs;
  pairs.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    pairs.push_back(joined(symbols[i], symbols[i + 1]));
  }
  while (!pairs.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < pairs.size(); ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == kNoRank) return;
    symbols[best] = pairs[best].product;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    pairs.erase(pairs.begin() + static_cast<ptrdiff_t>(best));
    if (best > 0) pairs[best - 1] = joined(symbols[best - 1], symbols[best]);
    if (best < pairs.size()) pairs[best] = joined(symbols[best], symbols[best + 1]);
  }
}

// The same with a heap of (rank, place). An entry is out of date once the pair at its place has
// another rank; a place that was swallowed has none.
void BpeModel::merge_long(std::vector<int32_t>& symbols, Scratch& scratch) const {
  const size_t count = symbols.size();
  std::vector<Joined>& pairs = scratch.pairs;
  std::vector<int32_t>& previous = scratch.previous;
  std::vector<int32_t>& next = scratch.next;
  std::vector<uint64_t>& heap = scratch.heap;
  pairs.assign(count, {kNoRank, -1});
  previous.resize(count);
  next.resize(count);
  heap.clear();
  const auto entry = [&](size_t place) {
    return static_cast<uint64_t>(pairs[place].rank) << 32 | place;
  };
  for (size_t i = 0; i < count; ++i) {
    previous[i] = static_cast<int32_t>(i) - 1;
    next[i] = i + 1 < count ? static_cast<int32_t>(i) + 1 : -1;
    if (next[i] < 0) continue;
    pairs[i] = joined(symbols[i], symbols[i + 1]);
    if (pairs[i].rank != kNoRank) heap.push_back(entry(i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto refresh = [&](int32_t place) {
    pairs[place] =
        next[place] < 0 ? Joined{kNoRank, -1} : joined(symbols[place], symbols[next[place]]);
    if (pairs[place].rank == kNoRank) return;
    heap.push_back(entry(static_cast<size_t>(place)));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto place = static_cast<int32_t>(heap.back() & 0xFFFFFFFFu);
    const auto rank = static_cast<uint32_t>(heap.back() >> 32);
    heap.pop_back();
    if (pairs[place].rank != rank) continue;
    const int32_t right = next[place];
    symbols[place] = pairs[place].product;
    symbols[right] = -1;
    pairs[right] = {kNoRank, -1};
    next[place] = next[right];
    if (next[place] >= 0) previous[next[place]] = place;
    refresh(place);
    if (previous[place] >= 0) refresh(previous[place]);
  }
  std::erase(symbols, -1);
}

}  // namespace tptrain::tokenizer
