#include "hub/download.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/git_blob_hash.h"
#include "base/text.h"
#include "base/work.h"
#include "hub/attempts.h"

namespace tptrain::hub {

struct ContentHash::Impl {
  std::optional<Sha256> sha256;
  std::optional<GitBlobHash> git;
};

ContentHash::ContentHash(const RemoteFile& file) : impl_(std::make_unique<Impl>()) {
  constexpr size_t kSha256Digits = 64;
  if (file.hash.size() == kSha256Digits) {
    impl_->sha256.emplace();
  } else {
    impl_->git.emplace(file.size_bytes);
  }
}
ContentHash::~ContentHash() = default;
ContentHash::ContentHash(ContentHash&&) noexcept = default;
ContentHash& ContentHash::operator=(ContentHash&&) noexcept = default;

void ContentHash::update(const void* bytes, size_t count) {
  impl_->sha256 ? impl_->sha256->update(bytes, count) : impl_->git->update(bytes, count);
}

std::string ContentHash::hex() { return impl_->sha256 ? impl_->sha256->hex() : impl_->git->hex(); }

namespace {

constexpr int kPatience = 8;  // half a minute without a byte
constexpr size_t kPiece = size_t{1} << 20;

/// The first `size` bytes into `hash`.
void hash_bytes(const Handle& open, int64_t size, const std::string& name, ContentHash& hash) {
  std::vector<char> piece(kPiece);
  for (int64_t at = 0; at < size;) {
    const auto wanted = static_cast<size_t>(std::min<int64_t>(kPiece, size - at));
    const size_t got = read_at(open, name, at, piece.data(), wanted);
    if (got == 0) throw DataError(problem("the file ended while it was read").at(name));
    hash.update(piece.data(), got);
    at += static_cast<int64_t>(got);
  }
}

/// "bytes 100-199/200": whether the answer begins at `from` and is of a file of `size` bytes.
bool continues(const std::string& content_range, int64_t from, int64_t size) {
  return content_range == cat("bytes ", from, "-", size - 1, "/", size);
}

class Download {
 public:
  Download(HttpClient& http, const DownloadFrom& from, const RemoteFile& file, const OutFolder& out)
      : http_(http),
        from_(from),
        file_(file),
        out_(out),
        name_(unfinished_name(file)),
        place_((out.path() / file.path).string()),
        unfinished_(out.open_unfinished(name_)),
        hash_(file) {}

  int64_t run() {
    const int64_t resumed = take_what_is_there();
    Attempts attempts(from_.hub, from_.repository, cat(file_.path, " of ", from_.repository.text()),
                      kPatience);
    while (!whole(attempts)) attempt(attempts);
    out_.finish(unfinished_, name_, file_.path);
    return resumed;
  }

 private:
  int64_t take_what_is_there() {
    written_ = size_of(unfinished_, place_);
    if (written_ > file_.size_bytes) begin_anew();
    hash_bytes(unfinished_, written_, place_, hash_);
    most_written_ = written_;
    work_done(WorkUnit::bytes, written_);
    return written_;
  }

  void begin_anew() {
    if (written_ > 0 && written_ <= file_.size_bytes) work_done(WorkUnit::bytes, -written_);
    truncate(unfinished_, place_);
    written_ = 0;
    hash_ = ContentHash(file_);
  }

  /// All bytes are there, and are the right ones. The wrong ones go.
  bool whole(Attempts& attempts) {
    if (written_ < file_.size_bytes) return false;
    const std::string hash = hash_.hex();
    if (hash == file_.hash) return true;
    begin_anew();
    useless(attempts, cat("the bytes that came have the hash ", hash, ", and the hub's list says ",
                          file_.hash));
    return false;
  }

  void attempt(Attempts& attempts) {
    check_wanted();
    HttpAnswer answer;
    try {
      answer = http_.get(file_url(from_.hub, from_.repository, from_.commit, file_.path), written_,
                         {.begin = [&](const HttpAnswer& begun) { begin(begun); },
                          .bytes = [&](std::string_view more) { take(more); }});
    } catch (const Useless& caught) {
      begin_anew();
      return useless(attempts, caught.reason);
    }
    if (written_ > most_written_) attempts.progress();
    most_written_ = std::max(most_written_, written_);
    if (written_ == file_.size_bytes && answer.status / 100 == 2) return;  // whole() judges
    if (answer.status == 416) begin_anew();  // what is there is longer than what the server has
    if (answer.ok())
      return attempts.failed(cat("the answer ended after ", with_thousands(written_), " of ",
                                 with_thousands(file_.size_bytes), " bytes"));
    attempts.failed(answer, http_.error_body());
  }

  /// The bytes that follow are the whole file, or go on where ours end.
  void begin(const HttpAnswer& answer) {
    if (written_ == 0 && answer.status == 200) return;
    if (answer.status == 206) {
      if (continues(answer.header("content-range"), written_, file_.size_bytes)) return;
      throw Useless{"the server sent another part of the file than it was asked for"};
    }
    begin_anew();
  }

  void take(std::string_view more) {
    check_wanted();
    if (static_cast<int64_t>(more.size()) > file_.size_bytes - written_)
      throw Useless{cat("the server sent more than the ", with_thousands(file_.size_bytes),
                        " bytes of the hub's list")};
    append(unfinished_, place_, more);
    hash_.update(more.data(), more.size());
    written_ += static_cast<int64_t>(more.size());
    work_done(WorkUnit::bytes, static_cast<int64_t>(more.size()));
  }

  void check_wanted() const {
    if (from_.given_up) throw DataError(problem("another file could not be fetched").at(place_));
  }

  /// Of bytes that came and cannot be this file's.
  struct Useless {
    std::string reason;
  };
  void useless(Attempts& attempts, const std::string& reason) {
    constexpr int kMost = 4;  // a bad cable, a proxy's cache: not for ever
    if (++useless_answers_ == kMost)
      throw DataError(problem(cat(file_.path, ": ", reason))
                          .at(from_.hub.endpoint)
                          .must("be what the hub's list says")
                          .remedy(cat("This happened ", kMost,
                                      " times: nothing of it was kept. A "
                                      "mirror or a proxy on the way may hold another version.")));
    attempts.failed(reason);
  }

  HttpClient& http_;
  const DownloadFrom& from_;
  const RemoteFile& file_;
  const OutFolder& out_;
  std::string name_;
  std::string place_;
  Handle unfinished_;
  ContentHash hash_;
  int64_t written_ = 0;
  int64_t most_written_ = 0;
  int useless_answers_ = 0;
};

}  // namespace

bool is_that_file(const Handle& open, const RemoteFile& file, const std::string& name) {
  if (size_of(open, name) != file.size_bytes) return false;
  ContentHash hash(file);
  hash_bytes(open, file.size_bytes, name, hash);
  return hash.hex() == file.hash;
}

std::string unfinished_name(const RemoteFile& file) {
  constexpr size_t kDigits = 32;
  return cat(sha256_hex(cat(file.hash, " ", file.path)).substr(0, kDigits), ".part");
}

int64_t download(HttpClient& http, const DownloadFrom& from, const RemoteFile& file,
                 const OutFolder& out) {
  return Download(http, from, file, out).run();
}

}  // namespace tptrain::hub
