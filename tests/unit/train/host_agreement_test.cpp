// What differs between hosts is refused with rank, host and value.
#include "train/host_agreement.h"

#include "base/host.h"
#include "support/catch.h"
#include "support/thread_group.h"

namespace tptrain::testing {

using train::Fact;

TEST_CASE("a difference names the fact, the first rank that differs, its host and both values") {
  const std::vector<std::string> hosts = {"a", "a", "b", "b"};
  const auto facts = [](const std::string& device, const std::string& shape) {
    return std::vector<Fact>{{.name = "the device", .value = device, .remedy = "Look there."},
                             {.name = "the shape", .value = shape, .remedy = "Copy it."}};
  };
  CHECK(train::differing_facts({facts("cuda", "x"), facts("cuda", "x")}, {"a", "b"}).empty());
  const std::vector<Problem> problems = train::differing_facts(
      {facts("cuda", "{\n  \"layers\": 2,\n  \"heads\": 4\n}"),
       facts("cuda", "{\n  \"layers\": 2,\n  \"heads\": 4\n}"),
       facts("cpu", "{\n  \"layers\": 2,\n  \"heads\": 8\n}"), facts("cpu", "{\n}")},
      hosts);
  REQUIRE(problems.size() == 2);
  CHECK(problems[0].text() ==
        "the device differs: rank 2 on b has cpu, rank 0 on a has cuda: it must be the same on "
        "every rank.\n  Look there.");
  CHECK(problems[1].text() ==
        "the shape differs: rank 2 on b has \"heads\": 8, rank 0 on a has \"heads\": 4: it must be "
        "the same on every rank.\n  Copy it.");
}

TEST_CASE("values of which one ends before the other differ too") {
  const auto shown = [](const std::string& first, const std::string& other) {
    return train::differing_facts({{{.name = "x", .value = first, .remedy = ""}},
                                   {{.name = "x", .value = other, .remedy = ""}}},
                                  {"a", "b"})
        .at(0)
        .received;
  };
  CHECK(shown("1\n", "1\n2\n") == "x differs: rank 1 on b has 2, rank 0 on a has nothing");
  CHECK(shown("1\n2\n", "1\n") == "x differs: rank 1 on b has nothing, rank 0 on a has 2");
}

TEST_CASE("every rank learns of the difference, and of the hosts where there is none") {
  ThreadGroup group(3);
  for (const int odd : {0, 2, -1}) {
    const std::vector<std::exception_ptr> thrown = group.run([odd](comm::ControlGroup& member) {
      const std::string value = member.rank() == odd ? "this" : "that";
      const auto hosts = train::agree_on_facts(
          member, {{.name = "the program", .value = value, .remedy = "Install one."}});
      CHECK(hosts == std::vector<std::string>(3, host_name()));
    });
    for (const std::exception_ptr& one : thrown) {
      REQUIRE((one != nullptr) == (odd >= 0));
      if (!one) continue;
      try {
        std::rethrow_exception(one);
      } catch (const Error& error) {
        INFO(error.what());
        CHECK(error.code() == ExitCode::config);
        CHECK(error.agreed());
        CHECK(std::string(error.what()).find("the program differs: rank ") != std::string::npos);
      }
    }
  }
}

TEST_CASE("this program has an identity, and it is the same each time") {
  CHECK(program_build_id().size() >= 16);
  CHECK(program_build_id() == program_build_id());
}

TEST_CASE("a tp group over several hosts is named") {
  CHECK(train::tp_group_across_hosts({"a", "a", "b", "b"}, 2).empty());
  CHECK(train::tp_group_across_hosts({"a", "b"}, 1).empty());
  const std::string slow = train::tp_group_across_hosts({"a", "a", "b", "c"}, 2);
  CHECK(slow.starts_with("the tp group of ranks 2 to 3 goes over hosts b and c: "));
}

}  // namespace tptrain::testing
