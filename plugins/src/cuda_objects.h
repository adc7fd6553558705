// Memory, streams, events and graphs of a CUDA device, given back when they go out of scope. The
// device's context must be current for all of it, and for the end of each object.
#pragma once

#include "cuda_driver.h"

namespace cn2::cuda {

// Device memory; what is in it is lost when it grows.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  ~DeviceBuffer() { reset(); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  // Whether the address is another one now. Throws Error (CN2_OUT_OF_MEMORY, CN2_INFERENCE_ERROR).
  bool reserve(size_t bytes);
  size_t size() const { return size_; }
  Pointer address() const { return address_; }
  void* pointer() const { return reinterpret_cast<void*>(static_cast<uintptr_t>(address_)); }

 private:
  void reset();
  Pointer address_ = 0;
  size_t size_ = 0;
};

// Host memory that the device reads and writes by itself.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  ~PinnedBuffer() { reset(); }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  // Throws as DeviceBuffer::reserve.
  void reserve(size_t bytes);
  uint8_t* data() const { return static_cast<uint8_t*>(data_); }

 private:
  void reset();
  void* data_ = nullptr;
  size_t size_ = 0;
};

// A handle of the driver and the function that ends it.
class Object {
 public:
  using Destroy = Result (*)(Handle);
  explicit Object(Destroy destroy) : destroy_(destroy) {}
  ~Object() { reset(); }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  Handle get() const { return handle_; }
  Handle* out() {
    reset();
    return &handle_;
  }
  void reset() {
    if (handle_ != nullptr) {
      destroy_(handle_);
      handle_ = nullptr;
    }
  }

 private:
  Destroy destroy_;
  Handle handle_ = nullptr;
};

// A moment in a stream.
class Event : public Object {
 public:
  Event();
};

// Work of its own order, beside that of other streams.
class Stream : public Object {
 public:
  Stream();

  // What comes on this stream from now on is after what is on another one of the device, which may
  // end then. Null: nothing. Throws Error (CN2_INFERENCE_ERROR).
  void follow(Handle other);

 private:
  Event reached_;
};

// Work of a stream, recorded once, that is launched as one.
class Graph : public Object {
 public:
  Graph() : Object(driver().destroy_executable) {}
};

}  // namespace cn2::cuda
