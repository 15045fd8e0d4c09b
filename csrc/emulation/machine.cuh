// The machine of csrc/machine.cuh on a host: every thread of a block is a fiber, collectives are where they meet.
//
// Checked: accesses outside of the shared array or the global buffers, misaligned ones, reads of shared memory that
// nothing wrote, accesses of one place by two threads without a barrier between them (in global memory by two blocks of
// a launch, which nothing orders), and threads of a warp or a block that do not meet. Compile with -DTENSOR_CORE=70 or 75.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>

#define DEVICE inline
#define INFINITE __builtin_huge_valf()

struct __half {
  _Float16 value;
};
struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};
struct float2 {
  float x, y;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulation {

// Global memory that a launch may touch.
struct Buffer {
  const char* start;
  long long bytes;
};

enum class Meeting { none, block_barrier, warp_barrier, shuffle, m8n8k4_row_col, m8n8k4_row_row, m16n8k8, matrices };

// Run the threads of all blocks; returns what went wrong, or null.
const char* run(const std::function<void()>& kernel, long long blocks, int threads, int shared_bytes,
                const Buffer* buffers, int buffer_count);

// Wait until all threads concerned are here, then do what the meeting is for with what each has brought.
void meet(Meeting meeting, void* brought = nullptr);

char* shared_start();
int shared_bytes();
void note_global_read(const void* at, int bytes);
void note_global_write(const void* at, int bytes);
void check_shared(const void* at, int bytes, const void* low, const void* high);
void note_shared_read(const void* at, int bytes);
void note_shared_write(const void* at, int bytes);
[[noreturn]] void fail(const char* reason);

}  // namespace emulation

#define KERNEL(name, Parameters, threads, min_blocks)                                                         \
  static void name(const Parameters p);                                                                       \
  extern "C" int name##_parameter_bytes() { return sizeof(Parameters); }                                      \
  extern "C" const char* name##_emulate(const Parameters* p, long long blocks, int shared_bytes,              \
                                        const emulation::Buffer* buffers, int buffer_count) {                 \
    return emulation::run([p] { name(*p); }, blocks, threads, shared_bytes, buffers, buffer_count);           \
  }                                                                                                           \
  static void name(const Parameters p)
#define LAUNCH(name, threads, rows, shared_bytes) extern "C" int name##_launch[3] = {threads, rows, shared_bytes};

template <class T>
struct Global {
  T* at;
  Global operator+(long long elements) const { return {at + elements}; }
};

// With the bounds of the array that it points into.
template <class T>
struct Shared {
  T* at;
  const char *low, *high;
  Shared operator+(int elements) const { return {at + elements, low, high}; }
};

template <class V, class T>
V read(Global<T> from) {
  emulation::note_global_read(from.at, sizeof(V));
  V value;
  std::memcpy(&value, from.at, sizeof(V));
  return value;
}

template <class V, class T>
void write(Global<T> to, V value) {
  emulation::note_global_write(to.at, sizeof(V));
  std::memcpy(to.at, &value, sizeof(V));
}

template <class V, class T>
V read(Shared<T> from) {
  emulation::check_shared(from.at, sizeof(V), from.low, from.high);
  emulation::note_shared_read(from.at, sizeof(V));
  V value;
  std::memcpy(&value, from.at, sizeof(V));
  return value;
}

template <class V, class T>
void write(Shared<T> to, V value) {
  emulation::check_shared(to.at, sizeof(V), to.low, to.high);
  emulation::note_shared_write(to.at, sizeof(V));
  std::memcpy(to.at, &value, sizeof(V));
}

template <class T>
Shared<T> shared_array(int offset, int count) {
  const int bytes = count * static_cast<int>(sizeof(T));
  if (offset % 16 || offset + bytes > emulation::shared_bytes()) emulation::fail("shared array outside of its memory");
  char* low = emulation::shared_start() + offset;
  return {reinterpret_cast<T*>(low), low, low + bytes};
}

long long block_index();
int thread_index();
inline int warp_index() { return thread_index() / 32; }
inline int lane_index() { return thread_index() % 32; }

inline void block_barrier() { emulation::meet(emulation::Meeting::block_barrier); }
inline void warp_barrier() { emulation::meet(emulation::Meeting::warp_barrier); }

namespace emulation {

struct Shuffle {
  float value, received;
  int mask;
};

struct Product {
  float* c;
  unsigned a[2], b[2];
};

}  // namespace emulation

inline float shuffle_xor(float value, int mask) {
  emulation::Shuffle shuffle{value, 0.0f, mask};
  emulation::meet(emulation::Meeting::shuffle, &shuffle);
  return shuffle.received;
}

inline float exp2_approximate(float x) { return std::exp2(x); }
inline float divide_approximate(float a, float b) { return a / b; }

inline unsigned pack(float first, float second) {
  const _Float16 pair[2] = {static_cast<_Float16>(first), static_cast<_Float16>(second)};
  unsigned bits;
  std::memcpy(&bits, pair, sizeof bits);
  return bits;
}

inline float2 unpack(unsigned bits) {
  _Float16 pair[2];
  std::memcpy(pair, &bits, sizeof bits);
  return {static_cast<float>(pair[0]), static_cast<float>(pair[1])};
}

#if TENSOR_CORE == 70

inline void mma_m8n8k4_row_col(float (&c)[8], unsigned a0, unsigned a1, unsigned b0, unsigned b1) {
  emulation::Product product{c, {a0, a1}, {b0, b1}};
  emulation::meet(emulation::Meeting::m8n8k4_row_col, &product);
}

inline void mma_m8n8k4_row_row(float (&c)[8], unsigned a0, unsigned a1, unsigned b0, unsigned b1) {
  emulation::Product product{c, {a0, a1}, {b0, b1}};
  emulation::meet(emulation::Meeting::m8n8k4_row_row, &product);
}

#else

inline void mma_m16n8k8(float* c, unsigned a0, unsigned a1, unsigned b) {
  emulation::Product product{c, {a0, a1}, {b, 0}};
  emulation::meet(emulation::Meeting::m16n8k8, &product);
}

namespace emulation {

// Load `count` 8x8 matrices whose rows the lanes' addresses name; lanes 0 to 8 * count - 1 count.
void load_matrices(unsigned* r, int count, bool transposed, Shared<__half> row);

}  // namespace emulation

inline void load_matrices(unsigned (&r)[4], Shared<__half> row) { emulation::load_matrices(r, 4, false, row); }

inline unsigned load_matrix(Shared<__half> row) {
  unsigned r;
  emulation::load_matrices(&r, 1, false, row);
  return r;
}

inline unsigned load_matrix_transposed(Shared<__half> row) {
  unsigned r;
  emulation::load_matrices(&r, 1, true, row);
  return r;
}

#endif
