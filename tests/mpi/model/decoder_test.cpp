// The decoder cut over all ranks against the full weights on one.
#include "support/all_ranks.h"
#include "support/catch.h"
#include "support/decoder_checks.h"

namespace tptrain::testing {
namespace {

TEST_CASE("losses and gradients equal the reference's, recompute changes no bit") {
  check_decoder_against_reference(AllRanks().tp());
}

TEST_CASE("sequences that do not divide, and shorter ones than there are ranks") {
  check_sequence_lengths(AllRanks().tp());
}

TEST_CASE("micro-batches add up") { check_gradients_accumulate(AllRanks().tp()); }

TEST_CASE("packed documents train as each alone does") {
  check_documents_against_reference(AllRanks().tp());
}

TEST_CASE("generation equals the full forward for every chunking") {
  check_generation_against_reference(AllRanks().tp());
}

TEST_CASE("a layer costs the collectives that decoder_layer.h names") {
  check_collectives(AllRanks().tp());
}

TEST_CASE("with dropout, losses and gradients are those of one rank") {
  check_dropout_over_layouts(AllRanks().tp());
}

TEST_CASE("dropout depends on seed, step and sample alone; evaluation has none") {
  check_dropout_numbers(AllRanks().tp());
}

TEST_CASE("evaluation gives the same losses and leaves gradients alone") {
  check_evaluation(AllRanks().tp());
}

}  // namespace
}  // namespace tptrain::testing
