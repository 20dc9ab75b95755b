// Host messages over MPI, and agree(): no rank goes on, or stays behind, alone.
#include "comm/control.h"

#include <chrono>
#include <stdexcept>
#include <thread>

#include "base/error.h"
#include "base/interruption.h"
#include "base/stop.h"
#include "base/text.h"
#include "support/catch.h"
#include "support/mpi.h"

namespace tptrain::testing {
namespace {

using comm::agree;

TEST_CASE("host messages reach every rank") {
  comm::MpiSession& all = session();
  for (int root = 0; root < all.size(); ++root) {
    const std::string own = cat("from ", all.rank(), std::string(1, '\0'), "with a zero byte");
    CHECK(all.broadcast(own, root) == cat("from ", root, std::string(1, '\0'), "with a zero byte"));
    CHECK(all.broadcast("", root).empty());
  }
  // Rank r sends r * 1000 bytes: unlike lengths, and none at all from rank 0.
  const std::vector<std::string> gathered =
      all.all_gather(std::string(all.rank() * 1000, static_cast<char>('a' + all.rank())));
  REQUIRE(static_cast<int>(gathered.size()) == all.size());
  for (int r = 0; r < all.size(); ++r) {
    CHECK(gathered[r] == std::string(r * 1000, static_cast<char>('a' + r)));
  }
  const int64_t large = int64_t{1} << 40;
  CHECK(all.sum(large + all.rank()) == large * all.size() + all.size() * (all.size() - 1) / 2);
  CHECK(all.max(large - all.rank()) == large);
  all.barrier();
}

TEST_CASE("a message longer than one round arrives whole") {
  std::string text((size_t{1} << 28) + 5, 'x');
  text.back() = 'z';
  const std::string received = session().broadcast(session().rank() == 0 ? text : std::string(), 0);
  CHECK((received == text));
}

TEST_CASE("ranks of this host are counted") {
  CHECK(session().local_size() == session().size());  // the tests run on one host
  CHECK(session().local_rank() == session().rank());
}

TEST_CASE("an MPI error becomes a CommError with MPI's text") {
  try {
    session().broadcast("x", 99);
    FAIL("a root that does not exist was accepted");
  } catch (const CommError& error) {
    const std::string message = error.what();
    CHECK(message.rfind("communication error: world: MPI_Bcast failed with MPI error ", 0) == 0);
    CHECK(message.find("MPI_ERR_ROOT") != std::string::npos);
    CHECK(error.code() == ExitCode::communication);
  }
}

TEST_CASE("a second session is refused") {
  CHECK_THROWS_AS(comm::MpiSession(nullptr, nullptr), CommError);
}

// What agree() throws on this rank: its message, or "" where it returns.
struct Outcome {
  std::string message;
  ExitCode code = ExitCode::done;
  bool agreed = false;
};
Outcome outcome_of(const std::function<void()>& work) {
  try {
    agree(session(), work);
  } catch (const Error& error) {
    return {error.what(), error.code(), error.agreed()};
  }
  return {};
}

TEST_CASE("agree returns where no rank failed, after all have worked") {
  int done = 0;
  CHECK(outcome_of([&] { ++done; }).message.empty());
  CHECK(done == 1);
}

TEST_CASE("agree throws the error of the lowest failing rank on every rank") {
  for (int lowest = 0; lowest < session().size(); ++lowest) {
    const Outcome outcome = outcome_of([&] {
      if (session().rank() < lowest) return;
      throw DataError(problem(cat("file ", session().rank(), " is empty")).must("hold tokens"));
    });
    const bool alone = session().size() == 1;
    CHECK(outcome.message == cat("data error: ", alone ? "" : cat("[rank ", lowest, "] "), "file ",
                                 lowest, " is empty: it must hold tokens."));
    CHECK(outcome.code == ExitCode::data);
    CHECK(outcome.agreed);
  }
}

TEST_CASE("agree names no rank where all failed alike") {
  const Outcome outcome = outcome_of([] { throw CheckpointError(problem("disk is full")); });
  CHECK(outcome.message == "checkpoint error: disk is full.");
  CHECK(outcome.code == ExitCode::checkpoint);
  CHECK(outcome.agreed);
}

TEST_CASE("agree turns foreign exceptions into internal errors") {
  const int last = session().size() - 1;
  const std::string rank = last == 0 ? "" : cat("[rank ", last, "] ");
  const Outcome foreign = outcome_of([&] {
    if (session().rank() == last) throw std::runtime_error("vector::at");
  });
  CHECK(foreign.message == "internal error: " + rank + "vector::at.");
  CHECK(foreign.code == ExitCode::internal);
  const Outcome no_exception = outcome_of([&] {
    if (session().rank() == last) throw 7;
  });
  CHECK(no_exception.message ==
        "internal error: " + rank + "an exception that is no std::exception.");
}

TEST_CASE("ranks that wait hear that another is still at work") {
  comm::MpiSession& all = session();
  const uint64_t before = all.board()->read().writes;
  agree(all, [&] {
    if (all.rank() != 0) return;
    for (int i = 0; i < 75; ++i) {  // 1.5 s: the others hear of it four times a second
      interruption_point();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
  const uint64_t heard = all.board()->read().writes - before;
  CHECK(heard >= (all.rank() == 0 ? 1u : 4u));
}

// The last one here: a process that was asked to stop stays so.
TEST_CASE("a stop asked of one rank gives up the work of all, and only where it may be") {
  comm::MpiSession& all = session();
  agree(
      all, [] {}, OnStop::give_up);
  bool worked_to_the_end = false;
  const auto work = [&] {
    if (all.rank() == all.size() - 1) request_stop();  // the others hear of it
    if (all.rank() != 0) return;
    const auto begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < std::chrono::seconds(120)) {
      interruption_point();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    worked_to_the_end = true;
  };
  try {
    agree(all, work, OnStop::give_up);
    FAIL("nobody stopped");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::stopped);
    CHECK(error.agreed());
    CHECK(std::string(error.what()).find("stopped on request (") != std::string::npos);
  }
  CHECK_FALSE(worked_to_the_end);
  agree(all, [] { interruption_point(); });  // a save, say
}

}  // namespace
}  // namespace tptrain::testing
