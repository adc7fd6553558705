// CN2_CLONES before a function: it is compiled also for AVX2, and the processor decides at load
// time.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define CN2_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CN2_CLONES
#endif
