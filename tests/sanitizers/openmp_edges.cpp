// For ThreadSanitizer: libgomp, which is not built with it, hands a loop to its threads and takes
// it back by futexes that are not seen, so that all they do would look like races. This stands
// before libgomp's own function in programs built with it, and says what is ordered: what was done
// before the loop, each thread's part, what is done behind it. Two parts of one loop are not
// ordered: a race between them is seen.
#include <dlfcn.h>

extern "C" {

void __tsan_acquire(void* address);
void __tsan_release(void* address);

__attribute__((visibility("default"))) void GOMP_parallel(void (*body)(void*), void* data,
                                                          unsigned threads, unsigned flags) {
  using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
  static const auto parallel = reinterpret_cast<Parallel>(dlsym(RTLD_NEXT, "GOMP_parallel"));
  struct Loop {
    void (*body)(void*);
    void* data;
    char begun = 0, done = 0;
  } loop{.body = body, .data = data};
  __tsan_release(&loop.begun);
  parallel(
      [](void* context) {
        auto* of = static_cast<Loop*>(context);
        __tsan_acquire(&of->begun);
        of->body(of->data);
        __tsan_release(&of->done);
      },
      &loop, threads, flags);
  __tsan_acquire(&loop.done);
}

}  // extern "C"
