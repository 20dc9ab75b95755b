// Work that takes its time: what is counted for it, and what is said of it and when.
#include "base/work.h"

#include <fcntl.h>
#include <pty.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <regex>
#include <thread>

#include "base/files.h"
#include "base/work_display.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_CASE("the innermost work counts, from where it began") {
  CHECK_FALSE(current_work());
  work_done(WorkUnit::bytes, 1000);  // for nobody
  const Work outer("outer", WorkUnit::bytes, 10);
  work_done(WorkUnit::bytes, 4);
  CHECK(current_work()->done == 4);
  {
    const Work inner("inner", WorkUnit::parts, 3);
    work_done(WorkUnit::parts, 1);
    work_done(WorkUnit::bytes, 2);
    CHECK(current_work()->what == "inner");
    CHECK(current_work()->done == 1);
  }
  CHECK(current_work()->what == "outer");
  CHECK(current_work()->done == 6);
}

TEST_CASE("bytes of files are counted where they are written and read") {
  const testing::TempDir dir;
  const std::string text(100000, 'x');
  {
    const Work work("writing", WorkUnit::bytes, 100000);
    DurableFile file(dir / "file");
    file.write(text);
    file.commit();
    CHECK(current_work()->done == 100000);
  }
  const Work work("hashing", WorkUnit::bytes, 100000);
  sha256_file(dir / "file");
  CHECK(current_work()->done == 100000);
}

TEST_CASE("work is told with what is done of what, its rate and the rest") {
  WorkState work{
      .what = "reading the weights", .unit = WorkUnit::bytes, .total = 4 << 20, .done = 1 << 20};
  CHECK(work_text(work, 2) ==
        "reading the weights: 1.00 MiB of 4.00 MiB (25 %), 512.00 KiB/s, ETA 6s");
  work.done = 0;
  CHECK(work_text(work, 2) == "reading the weights: 0 B of 4.00 MiB (0 %)");
  work = {.what = "evaluating", .unit = WorkUnit::parts, .total = 12, .done = 3};
  CHECK(work_text(work, 20) == "evaluating: 3 of 12 (25 %), 0.15/s, ETA 1m 0s");
  CHECK(work_text(work, 0.5) == "evaluating: 3 of 12 (25 %), 6.0/s, ETA 2s");
  CHECK(work_text({.what = "building the model"}, 12) == "building the model: 12s so far");
}

TEST_CASE("a line is due two seconds after the work began, and then every fifteen") {
  WorkLines lines;
  const WorkLines::Time begin{};
  const WorkState work{.number = 1, .begun = begin};
  CHECK_FALSE(lines.due(work, begin + milliseconds(1900)));
  CHECK(lines.due(work, begin + seconds(2)));
  CHECK_FALSE(lines.due(work, begin + seconds(16)));
  CHECK(lines.due(work, begin + seconds(17)));
  const WorkState next{.number = 2, .begun = begin + seconds(18)};
  CHECK_FALSE(lines.due(next, begin + seconds(19)));
  CHECK(lines.due(next, begin + seconds(20)));
}

TEST_CASE("off a terminal slow work is said in a line, quick work is not") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  TerminalLine line(ends[1]);
  std::vector<std::string> said;
  std::atomic<bool> has_said = false;
  {
    WorkDisplay display(line, [&](const std::string& text) {
      said.push_back(text);
      has_said = true;
    });
    { const Work quick("quick work"); }
    const Work slow("slow work");
    for (int i = 0; i < 6000 && !has_said; ++i) std::this_thread::sleep_for(milliseconds(10));
  }
  REQUIRE_FALSE(said.empty());
  CHECK(std::regex_match(said[0], std::regex("slow work: ([2-9]|[1-5][0-9])s so far")));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("on a terminal slow work is a bar, and noted for whoever reads the log") {
  int leader = -1, follower = -1;
  REQUIRE(::openpty(&leader, &follower, nullptr, nullptr, nullptr) == 0);
  TerminalLine line(follower);
  std::string said, noted;
  std::atomic<bool> has_noted = false;
  {
    WorkDisplay display(
        line, [&](const std::string& text) { said = text; },
        [&](const std::string& text) {
          noted = text;
          has_noted = true;
        });
    const Work slow("evaluating", WorkUnit::parts, 12);
    work_done(WorkUnit::parts, 3);
    for (int i = 0; i < 6000 && !has_noted; ++i) std::this_thread::sleep_for(milliseconds(10));
  }
  CHECK(std::regex_match(noted,
                         std::regex("evaluating: 3 of 12 \\(25 %\\), [01]\\.[0-9]+/s, ETA .*")));
  CHECK(said.empty());
  ::close(leader);
  ::close(follower);
}

TEST_CASE("durations are written in two units", "[base]") {
  CHECK(duration_text(45.4) == "45s");
  CHECK(duration_text(185) == "3m 5s");
  CHECK(duration_text(2 * 3600 + 601) == "2h 10m");
  CHECK(duration_text(76 * 3600) == "3d 4h");
  CHECK(duration_text(-1) == "0s");
}

}  // namespace
}  // namespace tptrain
