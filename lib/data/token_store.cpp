#include "data/token_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"
#include "formats/token_file.h"

namespace tptrain::data {

namespace fs = std::filesystem;

namespace {

struct TextFile {
  fs::path path;
  std::string sha256;
};

/// What the tokens depend on, and nothing else: neither names nor times, so a corpus that moves to
/// another folder keeps its token files.
std::string identity_of(const tokenizer::Tokenizer& tokenizer, const std::vector<TextFile>& files) {
  Sha256 hash;
  hash.update("tptrain tokens 1: one document a file, closed by end of text\n");
  hash.update(tokenizer.hash() + "\n");
  for (const TextFile& file : files) hash.update(file.sha256 + "\n");
  return hash.hex();
}

/// Reads a file front to back; the end is an empty piece.
class Reader {
 public:
  explicit Reader(const fs::path& path) : path_(path), piece_(size_t{1} << 20, '\0') {
    do {
      descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    } while (descriptor_ < 0 && errno == EINTR);
    if (descriptor_ < 0) fail("open");
  }
  ~Reader() { ::close(descriptor_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  std::string_view next() {
    ssize_t count;
    do {
      count = ::read(descriptor_, piece_.data(), piece_.size());
    } while (count < 0 && errno == EINTR);
    if (count < 0) fail("read");
    return std::string_view(piece_).substr(0, static_cast<size_t>(count));
  }

 private:
  [[noreturn]] void fail(const char* call) const {
    throw DataError(problem(cat(call, " failed: ", std::generic_category().message(errno)))
                        .at(path_.string())
                        .remedy("Every file that the data sources name is read: make it readable, "
                                "or name the others one by one."));
  }

  fs::path path_;
  std::string piece_;
  int descriptor_ = -1;
};

std::string hash_text(const fs::path& path, int64_t& total_bytes) {
  Reader reader(path);
  Sha256 hash;
  for (std::string_view piece = reader.next(); !piece.empty(); piece = reader.next()) {
    hash.update(piece);
    total_bytes += static_cast<int64_t>(piece.size());
  }
  return hash.hex();
}

/// Appends the file as one document; a file without text is none.
void append_document(const TextFile& file, const tokenizer::Tokenizer& tokenizer,
                     formats::TokenFileWriter& writer) {
  Sha256 hash;
  bool any = false;
  const auto append = [&](std::string_view text) {
    hash.update(text);
    any = any || !text.empty();
    writer.append(tokenizer.encode(text));
  };
  if (tokenizer.encodes_piecewise()) {
    Reader reader(file.path);
    for (std::string_view piece = reader.next(); !piece.empty(); piece = reader.next()) {
      append(piece);
    }
  } else {
    append(read_file(file.path));
  }
  // The name of the token file was made from the first reading.
  if (hash.hex() != file.sha256) {
    throw DataError(problem("the file changed while it was read")
                        .at(file.path.string())
                        .must("stay as it is until training has begun")
                        .remedy("Start again when it is complete."));
  }
  if (!any) return;
  const int32_t end = tokenizer.end_of_text();
  writer.append({&end, 1});
  writer.end_document();
}

// By the contract one process at a time prepares in a directory, so a temporary is what a killed
// one left.
void remove_leftovers(const fs::path& directory, const std::string& split) {
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().native();
    const bool bin = name.starts_with(split + "-") && name.find(".bin.tmp-") != std::string::npos;
    const bool idx =
        name.starts_with("." + split + "-") && name.find(".idx.tmp-") != std::string::npos;
    std::error_code ignored;  // what cannot be removed is in nobody's way
    if (bin || idx) fs::remove(entry.path(), ignored);
  }
}

}  // namespace

PreparedTokens prepare_tokens(const std::vector<config::DataSource>& sources,
                              const tokenizer::Tokenizer& tokenizer, const fs::path& directory,
                              const std::string& split) {
  const std::string key = "data." + split;
  std::vector<TextFile> files;
  int64_t total_bytes = 0;
  for (const fs::path& path : expand_sources(sources, key)) {
    files.push_back({path, hash_text(path, total_bytes)});
  }
  if (total_bytes == 0) {
    throw DataError(problem(cat("all ", files.size(), " file(s) are empty, the first is ",
                                files.front().path.string()))
                        .at(key)
                        .must("hold text")
                        .remedy("Name files with text."));
  }
  PreparedTokens prepared;
  prepared.split = split;
  prepared.identity = identity_of(tokenizer, files);
  prepared.path = directory / cat(split, "-", prepared.identity);

  std::error_code ignored;
  if (fs::exists(formats::token_idx_path(prepared.path), ignored)) {
    try {
      const formats::TokenFile file(prepared.path);
      if (file.header().identity == prepared.identity &&
          file.header().vocab_size == tokenizer.vocab_size()) {
        file.verify();
        prepared.tokens = file.tokens();
        prepared.documents = file.header().documents();
        prepared.reused = true;
        return prepared;
      }
      prepared.rebuilt_because = "the file was made from other text or by another tokenizer";
    } catch (const DataError& damage) {
      prepared.rebuilt_because = damage.what();
    }
  }

  create_directories_durably(directory, FailAs::data_error);
  remove_leftovers(directory, split);
  formats::TokenFileWriter writer(prepared.path, tokenizer.vocab_size(), prepared.identity);
  for (const TextFile& file : files) append_document(file, tokenizer, writer);
  const formats::TokenFileHeader header = writer.commit();
  prepared.tokens = header.tokens;
  prepared.documents = header.documents();
  return prepared;
}

}  // namespace tptrain::data
