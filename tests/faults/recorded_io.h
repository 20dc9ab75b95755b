// What a disk may hold after the power fails, from the calls that io_faults recorded: a model of a
// file system that keeps what was synced, and of the rest whatever it pleases.
//
// The rules are those on which the protocol relies, and no others (POSIX, and what ALICE and the
// LevelDB and SQLite harnesses take for granted):
//   bytes    are safe once their file is fsynced; others are kept, lost, torn or zeroed, write by
//   write names    made, renamed or removed are safe once their directory is fsynced; others are
//   kept or
//            lost one by one, in any order, but a rename is one thing: its two names change
//            together
//   a file   that was made exists without its bytes, if its name was kept
#pragma once

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

namespace tptrain::testing {

struct RecordedCall {
  enum class Kind {
    make_file,
    write,
    sync,
    make_directory,
    rename,
    unlink,
    remove_directory,
    note
  };
  Kind kind = Kind::note;
  int64_t begin_us = 0;
  int64_t end_us = 0;
  std::string path;   // relative to the folder; of a note: its text
  std::string to;     // of a rename
  std::string bytes;  // of a write, at the end of the file
};

/// The calls of all ranks in `records`, in the order in which they ended, with paths relative to
/// `folder`. Reads and closes are left out. Throws where a line cannot be understood.
std::vector<RecordedCall> read_record(const std::filesystem::path& records, int ranks,
                                      const std::filesystem::path& folder);

/// The folder after a power failure at the moment `crash` (a number of calls that had ended; the
/// next ones of other ranks may have been under way), made anew at `target`.
void make_crash_state(const std::vector<RecordedCall>& calls, size_t crash, std::mt19937_64& random,
                      const std::filesystem::path& target);

}  // namespace tptrain::testing
