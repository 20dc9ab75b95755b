#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "tokenizer/tokenizer.h"

namespace tptrain::tokenizer {

std::vector<std::vector<int32_t>> encode_documents(const Tokenizer& tokenizer,
                                                   std::span<const std::string_view> documents,
                                                   const EncodeOptions& options, int threads) {
  std::vector<std::vector<int32_t>> encoded(documents.size());
  std::vector<std::exception_ptr> failures(documents.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < documents.size(); i = next++) {
      try {
        encoded[i] = tokenizer.encode(documents[i], options);
      } catch (...) {
        failures[i] = std::current_exception();
      }
    }
  };
  const size_t most = std::min<size_t>(documents.size(), std::max(threads, 1));
  std::vector<std::jthread> workers;
  for (size_t i = 1; i < most; ++i) workers.emplace_back(work);
  work();
  workers.clear();
  // The first by document, so that the message does not depend on the threads.
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return encoded;
}

}  // namespace tptrain::tokenizer
