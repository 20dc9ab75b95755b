// A disk that fails on purpose: a shared library that stands before the C library (LD_PRELOAD, or
// linked into a test), counts the calls of durable I/O on files under one folder, and at call k
// kills or stops the process or lets the call fail; or only records. It knows nothing of tptrain.
//
// Counted, where their file lies under the folder: open (creat, fopen), read, pread, write, pwrite,
// fflush of buffered bytes, fsync, fdatasync, sync_file_range, ftruncate, fallocate, close
// (fclose), rename, link, unlink (remove), rmdir, mkdir, flock, opendir. Not counted: stat,
// statvfs, mmap, directory reads and fwrite into a buffer. tests/faults/compare_with_strace.py
// holds it to what the kernel sees.
//
// By the environment, for LD_PRELOAD:
//   IO_FAULTS_DIR      the folder, absolute and without links; unset: nothing is done at all
//   IO_FAULTS_RANK     the rank that is hit, as OMPI_COMM_WORLD_RANK says it; "any": every rank
//   IO_FAULTS_AT       the number of the call, from 1; 0 or unset: none
//   IO_FAULTS_KIND     kill | kill_after | stop | EIO | ENOSPC | EDQUOT | EINTR | short
//   IO_FAULTS_STAYS    1: every later call that takes or frees no space fails too (a disk that
//   stays
//                      full or broken): open for writing, write, fsync, mkdir, rename
//   IO_FAULTS_RECORD   a folder outside of IO_FAULTS_DIR: rank-R.calls gets a line a call and
//                      rank-R.data the bytes written; rank-R.hit says what the fault met
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/// What the environment says, said by a test that is linked with the library; strings as above,
/// null or "" for unset. Counting begins anew.
void io_faults_arm(const char* directory, int rank, long at, const char* kind, int stays,
                   const char* record_directory);
/// Calls counted since.
long io_faults_count(void);
/// A line of its own in the record: something else that happened between two calls.
void io_faults_note(const char* text);

#ifdef __cplusplus
}
#endif
