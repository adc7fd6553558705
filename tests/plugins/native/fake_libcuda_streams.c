/* Streams, events and graphs of the driver for tests. */
#include <string.h>

#include "fake_libcuda.h"

int cuStreamCreate(void **created, unsigned flags) {
  const int status = flags != 1 ? BAD_VALUE : make("stream", created, sizeof(stream));
  if (status == 0) {
    lock();
    add_stream(*created);
    unlock();
  }
  return status;
}

/* What is on it is still done. */
int cuStreamDestroy_v2(void *on) {
  lock();
  ((stream *)on)->destroyed = 1;
  unlock();
  return end(on);
}

int cuStreamSynchronize(void *handle) {
  const int status = note("synchronize");
  stream *on = lock_stream(handle);
  if (status == 0) {
    finish(on, on->queued);
  }
  unlock();
  return status;
}

int cuStreamWaitEvent(void *handle, void *awaited, unsigned flags) {
  const int status = flags != 0 ? BAD_VALUE : note("wait");
  stream *on = lock_stream(handle);
  if (status == 0) {
    queue_wait(on, awaited);
  }
  unlock();
  return status;
}

/* What libnvinfer and the kernels of the tests call to have their work done in a stream's order. */
int cuLaunchHostFunc(void *handle, work function, void *data) {
  stream *on = lock_stream(handle);
  graph *captured = on->captured;
  if (captured == NULL) {
    queue_call(on, function, data);
  } else if (captured->filled) {
    unlock();
    return NOT_SUPPORTED;
  } else {
    captured->function = function;
    captured->data = data;
    captured->filled = 1;
  }
  unlock();
  return note(captured == NULL ? "run" : "record");
}

int cuEventCreate(void **made, unsigned flags) {
  return flags != 0 ? BAD_VALUE : make("event", made, sizeof(event));
}

/* Its record may still be queued. */
int cuEventDestroy_v2(void *one) {
  return end(one);
}

int cuEventRecord(void *recorded, void *handle) {
  stream *on = lock_stream(handle);
  queue_record(on, recorded);
  unlock();
  return has_context() ? 0 : NO_CONTEXT;
}

int cuEventSynchronize(void *awaited) {
  const event *one = awaited;
  const int status = one->on == NULL ? BAD_VALUE : note("await");
  if (status == 0) {
    lock();
    finish(one->on, one->place);
    unlock();
  }
  return status;
}

int cuEventElapsedTime(float *ms, void *start, void *end_event) {
  const event *from = start, *to = end_event;
  int ready;
  lock();
  ready = is_done(from) && is_done(to);
  *ms = (float)(to->time - from->time);
  unlock();
  return !has_context() ? NO_CONTEXT : ready ? 0 : NOT_READY;
}

int cuStreamBeginCapture_v2(void *on, unsigned mode) {
  void *made = NULL;
  const int status = mode != 1 ? BAD_VALUE : make("begin_capture", &made, sizeof(graph));
  if (status == 0) {
    ((stream *)on)->captured = made;
  }
  return status;
}

int cuStreamEndCapture(void *on, void **captured) {
  *captured = ((stream *)on)->captured;
  ((stream *)on)->captured = NULL;
  return note("end_capture");
}

int cuGraphInstantiateWithFlags(void **executable, void *captured, unsigned long long flags) {
  const int status = flags != 0 ? BAD_VALUE : make("instantiate", executable, sizeof(graph));
  if (status == 0) {
    memcpy(*executable, captured, sizeof(graph));
  }
  return status;
}

int cuGraphLaunch(void *executable, void *handle) {
  const int status = note("launch");
  stream *on = lock_stream(handle);
  if (status == 0) {
    queue_launch(on, executable);
  }
  unlock();
  return status;
}

int cuGraphDestroy(void *captured) {
  return end(captured);
}

int cuGraphExecDestroy(void *executable) {
  lock();
  ((graph *)executable)->destroyed = 1;
  unlock();
  return end(executable);
}
