/* What the files of the driver for tests share. */
#ifndef CN2_FAKE_LIBCUDA_H
#define CN2_FAKE_LIBCUDA_H

#include "fake_cuda_work.h"

enum {
  NO_DEVICE = 100,
  BAD_DEVICE = 101,
  NO_CONTEXT = 201,
  BAD_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_READY = 600,
  NOT_SUPPORTED = 801
};

#pragma GCC visibility push(hidden)

/* Note a call; its status. */
int note(const char* name);
int has_context(void);

/* Objects, counted. One that is ended stays, so that its use is seen. */
int make(const char* name, void** object, size_t size);
int end(void* object);

/* The lock of all work. */
void lock(void);
void unlock(void);

/* The stream of a handle, whose use is noted, and the lock. */
stream* lock_stream(void* handle);

#pragma GCC visibility pop

#endif /* CN2_FAKE_LIBCUDA_H */
