// The console line to the letter, and what the progress display sends to a terminal (a
// pseudo-terminal here) and to a file.
#include <fcntl.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>

#include "base/terminal_line.h"
#include "metrics/console.h"
#include "support/catch.h"

namespace tptrain::metrics {
namespace {

StepMetrics example() {
  return {.step = 20,
          .loss = 8.12341,
          .grad_norm = 1.23449,
          .lr = 1e-3,
          .tokens_seen = 81920,
          .step_time_s = 0.5,
          .tokens_per_second = 49380.4,
          .tokens_per_second_per_rank = 12345.1,
          .tflops = 123.449,
          .mfu = 0.12341,
          .peak_memory_bytes = 13249974108};
}

/// Everything that `work` prints while standard output is a terminal of `columns`.
std::string printed_on_terminal(int columns, const std::function<void()>& work) {
  int master = -1;
  int slave = -1;
  winsize size{};
  size.ws_row = 24;
  size.ws_col = static_cast<unsigned short>(columns);
  REQUIRE(::openpty(&master, &slave, nullptr, nullptr, &size) == 0);
  std::fflush(stdout);
  const int saved = ::dup(STDOUT_FILENO);
  ::dup2(slave, STDOUT_FILENO);
  ::close(slave);
  std::string text;
  // Beside it: a terminal that nobody reads from takes some thousand bytes and no more.
  std::thread reader([&] {
    char buffer[4096];
    for (ssize_t count; (count = ::read(master, buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<size_t>(count));
  });
  work();
  std::fflush(stdout);
  ::dup2(saved, STDOUT_FILENO);  // the last that has the terminal open: reading ends
  ::close(saved);
  reader.join();
  ::close(master);
  return text;
}

TEST_CASE("the line of a step names step of steps, loss, norm, the job's speed, mfu and the rest",
          "[metrics]") {
  CHECK(step_line(example(), 100, 185, 80) ==
        "step 20/100  loss 8.1234  norm 1.23  49,380 tokens/s  mfu 12.3%  ETA 3m 5s");
  StepMetrics metrics = example();
  metrics.mfu.reset();  // the device's peak is not known
  CHECK(step_line(metrics, 100, 185, 80) ==
        "step 20/100  loss 8.1234  norm 1.23  49,380 tokens/s  ETA 3m 5s");
}

TEST_CASE("the line of a step leaves parts out until it fits", "[metrics]") {
  CHECK(step_line(example(), 100, 185, 65) ==
        "step 20/100  loss 8.1234  49,380 tokens/s  mfu 12.3%  ETA 3m 5s");
  CHECK(step_line(example(), 100, 185, 60) ==
        "step 20/100  loss 8.1234  49,380 tokens/s  ETA 3m 5s");
  CHECK(step_line(example(), 100, 185, 30) == "step 20/100  loss 8.1234");
  StepMetrics large = example();
  large.step = 1234567;
  large.tokens_per_second = 12345678;
  for (int width = 0; width < 130; ++width)
    CHECK(step_line(large, 12345678, 1e7, width).size() <= static_cast<size_t>(width));
}

TEST_CASE("the time that is left follows the pace of the last steps, without the first",
          "[metrics]") {
  StepPace pace(10, 20);
  pace.add(11, 100);
  CHECK(pace.seconds_left() == Approx(9 * 100));
  pace.add(12, 2);
  CHECK(pace.seconds_left() == Approx(8 * 2));
  pace.add(14, 3);  // a step was skipped
  CHECK(pace.seconds_left() == Approx(6 * 2.1));
  pace.add(20, 2);
  CHECK(pace.seconds_left() == 0);
}

TEST_CASE("the progress line leaves parts out until it fits, and never fills the last column",
          "[metrics]") {
  const StepMetrics metrics = example();
  CHECK(progress_line(metrics, 100, 185, 120) ==
        "[====>                   ] step 20/100  loss 8.1234  49,380 tokens/s  ETA 3m 5s");
  CHECK(progress_line(metrics, 100, 185, 70) ==
        "step 20/100  loss 8.1234  49,380 tokens/s  ETA 3m 5s");
  CHECK(progress_line(metrics, 100, 185, 40) == "step 20/100  loss 8.1234  ETA 3m 5s");
  CHECK(progress_line(metrics, 100, 185, 30) == "step 20/100  loss 8.1234");
  CHECK(progress_line(metrics, 100, 185, 8) == "step 20");
  for (int width = 1; width < 130; ++width) {
    CHECK(progress_line(metrics, 100, 185, width).size() < static_cast<size_t>(width));
  }
}

TEST_CASE("on a terminal one line is redrawn, ended at the end", "[metrics]") {
  StepMetrics metrics = example();
  const std::string text = printed_on_terminal(100, [&] {
    TerminalLine line(STDOUT_FILENO);
    ProgressDisplay display(100, line);
    display.update(metrics, 40);
    metrics.step = 100;
    display.update(metrics, 0);
  });
  CHECK(text ==
        "\r\x1b[K[====>                   ] step 20/100  loss 8.1234  49,380 tokens/s  ETA 40s"
        "\r\x1b[K[========================] step 100/100  loss 8.1234  49,380 tokens/s  ETA 0s"
        "\r\n");
}

TEST_CASE("the line is redrawn at most ten times a second", "[metrics]") {
  StepMetrics metrics = example();
  const auto begin = std::chrono::steady_clock::now();
  const std::string text = printed_on_terminal(100, [&] {
    TerminalLine line(STDOUT_FILENO);
    ProgressDisplay display(1000000, line);
    for (int i = 0; i < 200; ++i) {
      metrics.step = i + 1;
      display.update(metrics, 1);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  size_t draws = 0;
  for (const char c : text) draws += c == '[' ? 1 : 0;
  // Each draw has two brackets, that of the erase sequence and that of the bar. 200 sleeps take 0.2
  // s, more on a loaded machine.
  const auto tenths = (std::chrono::steady_clock::now() - begin) / std::chrono::milliseconds(100);
  CHECK(draws / 2 >= 2);
  CHECK(draws / 2 <= static_cast<size_t>(tenths) + 2);  // the first and the last come at once
}

TEST_CASE("the line steps aside for lines of the log, and is drawn again by the next update",
          "[metrics]") {
  const StepMetrics metrics = example();
  const std::string text = printed_on_terminal(30, [&] {
    TerminalLine line(STDOUT_FILENO);
    ProgressDisplay display(100, line);
    display.update(metrics, 1);
    line.step_aside([] { REQUIRE(::write(STDOUT_FILENO, "log\n", 4) == 4); });
    display.update(metrics, 1);
    line.clear();
    line.clear();
  });
  const std::string line = "\r\x1b[Kstep 20/100  loss 8.1234";
  CHECK(text == line + "\r\x1b[Klog\r\n" + line + "\r\x1b[K");
}

TEST_CASE("nothing is drawn where standard output is no terminal", "[metrics]") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_NONBLOCK) == 0);
  std::fflush(stdout);
  const int saved = ::dup(STDOUT_FILENO);
  ::dup2(ends[1], STDOUT_FILENO);
  {
    TerminalLine line(STDOUT_FILENO);
    ProgressDisplay display(100, line);
    display.update(example(), 1);
  }
  ::dup2(saved, STDOUT_FILENO);
  char byte = 0;
  CHECK(::read(ends[0], &byte, 1) < 0);
  for (const int descriptor : {saved, ends[0], ends[1]}) ::close(descriptor);
}

}  // namespace
}  // namespace tptrain::metrics
