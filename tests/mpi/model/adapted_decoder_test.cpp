// Adapters beside a decoder that is cut over all ranks.
#include "support/adapter_checks.h"
#include "support/all_ranks.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

TEST_CASE("adapters over tp: the merged model's losses, logits and gradients") {
  check_adapters_against_reference(AllRanks().tp());
}

TEST_CASE("adapters over tp drop what one rank drops") { check_adapter_dropout(AllRanks().tp()); }

TEST_CASE("adapters over tp: no collective more than the base has") {
  check_adapter_collectives(AllRanks().tp());
}

}  // namespace
}  // namespace tptrain::testing
