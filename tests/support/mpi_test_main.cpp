// main of the tests that run under mpirun: every rank runs every test, prints with "[rank r/n] " in
// front of each line, and exits non-zero where any rank failed.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

#include <ATen/Parallel.h>
#include <sys/prctl.h>

#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <streambuf>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "device/gpu_environment.h"
#include "support/checked_session.h"
#include "support/mpi.h"

namespace tptrain::testing {

namespace {

std::unique_ptr<comm::MpiSession> the_session;
std::vector<std::function<void()>> last_things;

// Puts the rank in front of each line and sends it off at once, so that what a rank said before it
// crashed or hung is seen. Of ranks > 0 the summary of a run in which all went well is held back.
class RankPrefix final : public std::streambuf {
 public:
  RankPrefix(int rank, int size)
      : prefix_(cat("[rank ", rank, "/", size, "] ")), quiet_(rank > 0) {}
  ~RankPrefix() override {
    if (!line_.empty()) finish_line();
  }

 protected:
  int_type overflow(int_type c) override {
    if (traits_type::eq_int_type(c, traits_type::eof())) return traits_type::not_eof(c);
    line_ += traits_type::to_char_type(c);
    if (line_.back() == '\n') finish_line();
    return c;
  }

 private:
  bool says_nothing() const {
    return line_.find_first_not_of(" \n") == std::string::npos ||
           line_.find("=======") != std::string::npos ||
           line_.find("All tests passed") != std::string::npos;
  }
  void finish_line() {
    held_back_ += prefix_ + line_;
    const bool hold = quiet_ && says_nothing();
    line_.clear();
    if (hold) return;
    std::fwrite(held_back_.data(), 1, held_back_.size(), stdout);
    std::fflush(stdout);
    held_back_.clear();
  }

  std::string prefix_;
  bool quiet_;
  std::string line_;
  std::string held_back_;
};

int run(int argc, char** argv) {
  RankPrefix prefix(session().rank(), session().size());
  std::streambuf* const out = std::cout.rdbuf(&prefix);
  std::streambuf* const err = std::cerr.rdbuf(&prefix);
  const Asserts asserts = session().rank() == 0 ? Asserts::in_each_test : Asserts::perhaps;
  const int own = run_tests(argc, argv, session().size(), asserts);
  std::cout.flush();
  std::cout.rdbuf(out);
  std::cerr.rdbuf(err);
  return static_cast<int>(session().max(own == 0 ? 0 : 1));
}

}  // namespace

comm::MpiSession& session() { return *the_session; }

void before_session_ends(std::function<void()> what) { last_things.push_back(std::move(what)); }

}  // namespace tptrain::testing

int main(int argc, char** argv) {
  using namespace tptrain;
  device::ask_for_queues();
  // What a process takes is measured: in pages of one size, whatever this machine is set to.
  prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  at::set_num_threads(1);  // several ranks share the cores
  testing::the_session = std::make_unique<comm::MpiSession>(&argc, &argv);
  const int verdict = testing::run(argc, argv);
  for (const auto& last_thing : testing::last_things) last_thing();
  testing::the_session.reset();
  return verdict;
}
