#include "base/git_blob_hash.h"

#include <openssl/evp.h>

#include <array>

#include "base/error.h"
#include "base/hex.h"
#include "base/openssl.h"
#include "base/text.h"

namespace tptrain {

struct GitBlobHash::Impl {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(context); }
};

GitBlobHash::GitBlobHash(int64_t size_bytes) : impl_(std::make_unique<Impl>()) {
  if (impl_->context == nullptr) throw InternalError(problem("OpenSSL: EVP_MD_CTX_new failed"));
  check_openssl(EVP_DigestInit_ex(impl_->context, EVP_sha1(), nullptr), "EVP_DigestInit_ex");
  const std::string head = cat("blob ", size_bytes);
  update(head.c_str(), head.size() + 1);  // with the zero byte behind it
}

GitBlobHash::~GitBlobHash() = default;

void GitBlobHash::update(const void* bytes, size_t count) {
  check_openssl(EVP_DigestUpdate(impl_->context, bytes, count), "EVP_DigestUpdate");
}

std::string GitBlobHash::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  check_openssl(EVP_DigestFinal_ex(impl_->context, digest.data(), &size), "EVP_DigestFinal_ex");
  return to_hex({reinterpret_cast<const char*>(digest.data()), size});
}

}  // namespace tptrain
