#include "data/decompress.h"

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <climits>
#include <new>

#include "base/text.h"

namespace tptrain::data {

namespace {

constexpr std::string_view kGzipMagic = "\x1F\x8B";
constexpr std::string_view kZstdMagic = "\x28\xB5\x2F\xFD";

class Gzip final : public Decompressor {
 public:
  Gzip() {
    constexpr int kGzipOnly = 16;
    if (::inflateInit2(&stream_, MAX_WBITS + kGzipOnly) != Z_OK) throw std::bad_alloc();
  }
  ~Gzip() override { ::inflateEnd(&stream_); }
  Gzip(const Gzip&) = delete;
  Gzip& operator=(const Gzip&) = delete;

  std::string_view name() const override { return "gzip"; }
  bool complete() const override { return complete_; }

  Step run(std::string_view packed, std::span<char> out) override {
    if (complete_) {
      if (packed.empty()) return {};
      ::inflateReset(&stream_);
      complete_ = false;
    }
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
    stream_.avail_in = static_cast<uInt>(std::min<size_t>(packed.size(), UINT_MAX));
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(std::min<size_t>(out.size(), UINT_MAX));
    const uInt had = stream_.avail_in;
    const uInt room = stream_.avail_out;
    const int result = ::inflate(&stream_, Z_NO_FLUSH);
    complete_ = result == Z_STREAM_END;
    // Z_BUF_ERROR: nothing more can be done with this much input and room.
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) {
      throw StreamError{
          cat("is damaged (", stream_.msg != nullptr ? stream_.msg : "no gzip stream", ")")};
    }
    return {.taken = had - stream_.avail_in, .given = room - stream_.avail_out};
  }

 private:
  z_stream stream_ = {};
  bool complete_ = false;
};

class Zstd final : public Decompressor {
 public:
  Zstd() : stream_(::ZSTD_createDStream()) {
    if (stream_ == nullptr) throw std::bad_alloc();
  }
  ~Zstd() override { ::ZSTD_freeDStream(stream_); }
  Zstd(const Zstd&) = delete;
  Zstd& operator=(const Zstd&) = delete;

  std::string_view name() const override { return "zstd"; }
  bool complete() const override { return complete_; }

  Step run(std::string_view packed, std::span<char> out) override {
    if (complete_ && packed.empty()) return {};
    ZSTD_inBuffer in = {packed.data(), packed.size(), 0};
    ZSTD_outBuffer to = {out.data(), out.size(), 0};
    const size_t hint = ::ZSTD_decompressStream(stream_, &to, &in);
    if (::ZSTD_isError(hint)) throw StreamError{explain(hint)};
    complete_ = hint == 0;
    return {.taken = in.pos, .given = to.pos};
  }

 private:
  static std::string explain(size_t code) {
    if (::ZSTD_getErrorCode(code) == ZSTD_error_frameParameter_windowTooLarge) {
      return "needs a window of more than 128 MiB to unpack (it was made with --long)";
    }
    return cat("is damaged (", ::ZSTD_getErrorName(code), ")");
  }

  ZSTD_DStream* stream_;
  bool complete_ = false;
};

}  // namespace

std::unique_ptr<Decompressor> decompressor_for(std::string_view head) {
  if (head.starts_with(kGzipMagic)) return std::make_unique<Gzip>();
  if (head.starts_with(kZstdMagic)) return std::make_unique<Zstd>();
  return nullptr;
}

}  // namespace tptrain::data
