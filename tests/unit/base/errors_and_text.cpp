#include <pty.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cause.h"
#include "base/error.h"
#include "base/terminal_colour.h"
#include "base/text.h"
#include "support/catch.h"

namespace tptrain {
namespace {

TEST_CASE("a problem reads: place, received, constraint, remedy; what is empty is left out") {
  CHECK(problem("x is 4").at("run.yaml:7:12").must("be 2").remedy("Set x: 2.").text() ==
        "run.yaml:7:12: x is 4: it must be 2.\n  Set x: 2.");
  CHECK(problem("x is 4").text() == "x is 4.");
  CHECK(problem("x is 4").remedy("Set x: 2.").text() == "x is 4.\n  Set x: 2.");
}

TEST_CASE("each problem of an error is a message of its own, with the kind before it") {
  const DataError error(std::vector<Problem>{problem("a").at("f:1"), problem("b").at("f:2")});
  CHECK(std::string(error.what()) == "data error: f:1: a.\ndata error: f:2: b.");
}

TEST_CASE("an error within another's sentence is what it says, and nothing around it") {
  CHECK(cause_of(DataError(problem("x is 4").at("f").must("be 2").remedy("Set x."))) ==
        "f: x is 4: it must be 2");
  CHECK(cause_of(DataError(std::vector<Problem>{problem("a").remedy("b"), problem("c")})) == "a");
  CHECK(cause_of(std::runtime_error("in file.cc: disk error: no room.")) ==
        "in file.cc: disk error: no room");
  CHECK(cause_of(std::runtime_error("")).empty());
}

TEST_CASE("the exit code is that of the kind") {
  CHECK(InternalError(problem("")).code() == ExitCode::internal);
  CHECK(ConfigError(problem("")).code() == ExitCode::config);
  CHECK(DataError(problem("")).code() == ExitCode::data);
  CHECK(CheckpointError(problem("")).code() == ExitCode::checkpoint);
  CHECK(NumericsError(problem("")).code() == ExitCode::non_finite);
  CHECK(CommError(problem("")).code() == ExitCode::communication);
  CHECK(static_cast<int>(ExitCode::stopped) == 75);
}

TEST_CASE("an error is agreed only when it is said to be") {
  DataError error(problem("a"));
  CHECK_FALSE(error.agreed());
  error.set_agreed();
  CHECK(error.agreed());
}

TEST_CASE("numbers as people read them") {
  CHECK(with_thousands(0) == "0");
  CHECK(with_thousands(999) == "999");
  CHECK(with_thousands(1000) == "1,000");
  CHECK(with_thousands(12345678) == "12,345,678");
  CHECK(with_thousands(-1000) == "-1,000");
  CHECK(with_thousands(-100) == "-100");
  CHECK(fixed(3.14159, 2) == "3.14");
  CHECK(human_bytes(512) == "512 B");
  CHECK(human_bytes(1536) == "1.50 KiB");
  CHECK(human_bytes(int64_t{3} << 30) == "3.00 GiB");
  CHECK(human_bytes(int64_t{5000} << 40) == "5000.00 TiB");
  CHECK(join(std::vector<int>{1, 2, 4}) == "1, 2, 4");
  CHECK(join(std::vector<int>{}) == "");
}

TEST_CASE("the nearest word is found for a typing error, and only then") {
  const std::vector<std::string> known = {"learning_rate", "eps", "weight_decay"};
  CHECK(nearest_word("lerning_rate", known) == "learning_rate");
  CHECK(nearest_word("weightdecay", known) == "weight_decay");
  CHECK(nearest_word("esp", known) == "eps");
  CHECK(nearest_word("momentum_of_inertia", known) == "");
  CHECK(nearest_word("Learning-Rate", known) == "learning_rate");
  CHECK(nearest_word("learn", known) == "learning_rate");  // the one that begins so
  CHECK(nearest_word(std::string(1 << 20, 'l'), known) == "");
}

TEST_CASE("words that differ where another word would are not taken for typing errors") {
  CHECK(nearest_word("pp_size", {"tp_size", "dp_size"}) == "");
  CHECK(nearest_word("tp_sze", {"tp_size", "dp_size"}) == "tp_size");
  CHECK(nearest_word("local_batch_size", {"global_batch_size"}) == "");
  CHECK(nearest_word("global_bacth_size", {"global_batch_size"}) == "global_batch_size");
  CHECK(nearest_word("max_lr", {"min_lr"}) == "");
  CHECK(nearest_word("fp16", {"fp32", "bf16"}) == "");
  CHECK(nearest_word("gpu", {"auto", "cuda", "cpu"}) == "");
  CHECK(nearest_word("m", {"max_steps"}) == "");
  CHECK(nearest_word("eval", {"evaluate", "evaluation"}) == "");  // two begin so
}

TEST_CASE("an error's kind is coloured on a terminal, where NO_COLOR is unset") {
  int master = -1;
  int terminal = -1;
  int pipe_ends[2] = {};
  REQUIRE(::openpty(&master, &terminal, nullptr, nullptr, nullptr) == 0);
  REQUIRE(::pipe(pipe_ends) == 0);
  const std::string message = "config error: x is 4.\n  Set x: 2.";
  ::setenv("TERM", "xterm", 1);
  ::unsetenv("NO_COLOR");
  CHECK(error_text(message, terminal) == "\x1b[31mconfig error:\x1b[0m x is 4.\n  Set x: 2.");
  CHECK(error_text(message, pipe_ends[1]) == message);
  CHECK(error_text("no kind\nan error: here", terminal) == "no kind\nan error: here");
  ::setenv("NO_COLOR", "1", 1);
  CHECK(error_text(message, terminal) == message);
  ::setenv("NO_COLOR", "", 1);  // empty: as if unset
  ::setenv("TERM", "dumb", 1);
  CHECK(error_text(message, terminal) == message);
  for (const int descriptor : {master, terminal, pipe_ends[0], pipe_ends[1]}) ::close(descriptor);
}

}  // namespace
}  // namespace tptrain
