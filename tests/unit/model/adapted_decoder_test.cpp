// Adapters beside the decoder's linears on one rank.
#include "comm/communicator.h"
#include "support/adapter_checks.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

TEST_CASE("a decoder with adapters is one with the merged weights, and they get its gradients") {
  check_adapters_against_reference(*comm::single_rank_communicator("tp"));
}

TEST_CASE("the gradients of adapters with dropout are the slopes of the loss") {
  check_adapter_dropout_gradient();
}

}  // namespace
}  // namespace tptrain::testing
