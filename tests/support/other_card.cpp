// Linked into a test of CUDA: with TPTRAIN_TEST_CARD=CARD[+cudnn|+flash] set (ctest does), the
// kernels take the paths that they take on that card, whichever is there. Without it: nothing.
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>

#include "kernels/cuda/properties.h"

namespace tptrain::testing {
namespace {

using kernels::cuda::FusedAttention;
using kernels::cuda::Properties;

// CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; multiprocessors of
// NVIDIA's data sheets.
const std::map<std::string, Properties> kCards = {
    {"a100", {108, 163 << 10, 164 << 10, 80}},    {"rtx3090", {82, 99 << 10, 100 << 10, 86}},
    {"l40s", {142, 99 << 10, 100 << 10, 89}},     {"b200", {148, 227 << 10, 228 << 10, 100}},
    {"rtx5090", {170, 99 << 10, 100 << 10, 120}},
};

class CardOfEnvironment {
 public:
  CardOfEnvironment() {
    const char* value = std::getenv("TPTRAIN_TEST_CARD");
    if (value == nullptr || *value == '\0') return;
    const std::string text = value;
    const size_t plus = text.find('+');
    const std::string attention = plus == std::string::npos ? "" : text.substr(plus + 1);
    if (!attention.empty() && attention != "cudnn" && attention != "flash")
      throw std::invalid_argument("TPTRAIN_TEST_CARD: no attention " + attention);
    std::optional<FusedAttention> chosen;
    if (!attention.empty())
      chosen = attention == "flash" ? FusedAttention::flash : FusedAttention::cudnn;
    card_.emplace(kCards.at(text.substr(0, plus)), chosen);
  }

 private:
  std::optional<kernels::cuda::TakenFor> card_;
};

const CardOfEnvironment kCard;

}  // namespace
}  // namespace tptrain::testing
