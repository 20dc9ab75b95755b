// SHA-256 of bytes in memory (OpenSSL). Hashes of files are in files.cpp.
#include <openssl/evp.h>

#include <array>

#include "base/error.h"
#include "base/files.h"
#include "base/hex.h"
#include "base/openssl.h"

namespace tptrain {

struct Sha256::Impl {
  EVP_MD_CTX* context = nullptr;
  ~Impl() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) {
  impl_->context = EVP_MD_CTX_new();
  if (impl_->context == nullptr) throw InternalError(problem("OpenSSL: EVP_MD_CTX_new failed"));
  check_openssl(EVP_DigestInit_ex(impl_->context, EVP_sha256(), nullptr), "EVP_DigestInit_ex");
}

Sha256::~Sha256() = default;

void Sha256::update(const void* bytes, size_t count) {
  check_openssl(EVP_DigestUpdate(impl_->context, bytes, count), "EVP_DigestUpdate");
}

std::string Sha256::digest() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  check_openssl(EVP_DigestFinal_ex(impl_->context, digest.data(), &size), "EVP_DigestFinal_ex");
  return {digest.begin(), digest.begin() + size};
}

std::string Sha256::hex() { return to_hex(digest()); }

std::string sha256_hex(std::string_view bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

}  // namespace tptrain
