// For LeakSanitizer: what OpenMPI never frees is told from our own leaks by the library that asked
// for it (lsan.supp). OpenMPI unloads its components when it ends, before leaks are counted, and
// its libraries keep no frame pointers: then neither has a name. So in builds with a sanitizer what
// is loaded stays loaded, and each allocation remembers its callers by the tables for exceptions:
// slower, exact.
extern "C" {

__attribute__((visibility("default"))) int dlclose(void*) { return 0; }

__attribute__((visibility("default"))) const char* __asan_default_options() {
  return "fast_unwind_on_malloc=0";
}

}  // extern "C"
