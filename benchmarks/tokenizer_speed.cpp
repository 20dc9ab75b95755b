// bench_tokenizer_speed TOKENIZER FILE...: how fast one thread encodes each file as one text, and
// as documents (its lines, 64 at a time), without special tokens. Prints a line a file: name, MB/s
// of the first call (no piece was met before), of the best of five, of the best of five in
// documents. MB are 10^6 bytes; the time is that of the thread's processor.
// benchmarks/tokenizer_speed.py sets the Hugging Face library beside it.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "tokenizer/tokenizer.h"

namespace {

double seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

template <typename Call>
double megabytes_per_second(size_t bytes, int repeats, const Call& call) {
  double best = 0;
  for (int i = 0; i < repeats; ++i) {
    const double begin = seconds();
    call();
    best = std::max(best, static_cast<double>(bytes) / (seconds() - begin) / 1e6);
  }
  return best;
}

std::vector<std::string_view> documents_of(std::string_view text) {
  std::vector<std::string_view> documents;
  size_t begin = 0;
  int lines = 0;
  for (size_t end = text.find('\n'); end != text.npos; end = text.find('\n', end + 1)) {
    if (++lines % 64 != 0) continue;
    documents.push_back(text.substr(begin, end + 1 - begin));
    begin = end + 1;
  }
  documents.push_back(text.substr(begin));
  return documents;
}

}  // namespace

int main(int count, char** arguments) {
  using namespace tptrain;
  if (count < 3) {
    std::fprintf(stderr, "usage: bench_tokenizer_speed TOKENIZER FILE...\n");
    return 2;
  }
  try {
    for (int i = 2; i < count; ++i) {
      const std::string text = read_file(arguments[i]);
      const auto tokenizer = tokenizer::make_tokenizer(arguments[1]);
      const auto whole = [&] { tokenizer->encode(text); };
      const auto documents = documents_of(text);
      const double first = megabytes_per_second(text.size(), 1, whole);
      const double best = megabytes_per_second(text.size(), 5, whole);
      const double in_documents = megabytes_per_second(
          text.size(), 5, [&] { tokenizer::encode_documents(*tokenizer, documents, {}, 1); });
      std::printf("%s\t%.2f\t%.2f\t%.2f\n", arguments[i], first, best, in_documents);
    }
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.code());
  }
  return 0;
}
