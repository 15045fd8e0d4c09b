// What the kernels know of the machine: pointers, threads, barriers, shuffles, matrix instructions.
// csrc/emulation/machine.cuh has the same names for the host; kernels use nothing else.
#pragma once

#include <cuda_fp16.h>

#if __CUDA_ARCH__ >= 750
#define TENSOR_CORE 75
#else
#define TENSOR_CORE 70
#endif

#define DEVICE __device__ __forceinline__
#define INFINITE __int_as_float(0x7f800000)
// `min_blocks` is always given: with a bare thread count ptxas 12.9 spills where it need not.
#define KERNEL(name, Parameters, threads, min_blocks) \
  extern "C" __global__ void __launch_bounds__(threads, min_blocks) name(const Parameters p)
// Read from the cubin by the build, so that the host never repeats a tile size.
#define LAUNCH(name, threads, rows, shared_bytes) \
  extern "C" __device__ int name##_launch[3] = {threads, rows, shared_bytes};

template <class T>
struct Global {
  T* at;
  DEVICE Global operator+(long long elements) const { return {at + elements}; }
};

template <class T>
struct Shared {
  T* at;
  DEVICE Shared operator+(int elements) const { return {at + elements}; }
};

template <class V, class T>
DEVICE V read(Global<T> from) {
  return *reinterpret_cast<const V*>(from.at);
}

template <class V, class T>
DEVICE void write(Global<T> to, V value) {
  *reinterpret_cast<V*>(to.at) = value;
}

template <class V, class T>
DEVICE V read(Shared<T> from) {
  return *reinterpret_cast<const V*>(from.at);
}

template <class V, class T>
DEVICE void write(Shared<T> to, V value) {
  *reinterpret_cast<V*>(to.at) = value;
}

extern __shared__ uint4 shared_memory[];

// `count` elements that start `offset` bytes into the block's shared memory.
template <class T>
DEVICE Shared<T> shared_array(int offset, int count) {
  return {reinterpret_cast<T*>(reinterpret_cast<char*>(shared_memory) + offset)};
}

DEVICE long long block_index() { return blockIdx.x; }
DEVICE int thread_index() { return threadIdx.x; }
DEVICE int warp_index() { return threadIdx.x / 32; }
DEVICE int lane_index() { return threadIdx.x % 32; }

DEVICE void block_barrier() { __syncthreads(); }
DEVICE void warp_barrier() { __syncwarp(); }
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

DEVICE float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two units in the last place, for |b| below 2^126.
DEVICE float divide_approximate(float a, float b) { return __fdividef(a, b); }

// Two halves in a register, the first in the low bits; rounded to nearest.
DEVICE unsigned pack(float first, float second) {
  const __half2 pair = __floats2half2_rn(first, second);
  return *reinterpret_cast<const unsigned*>(&pair);
}

DEVICE float2 unpack(unsigned pair) { return __half22float2(*reinterpret_cast<const __half2*>(&pair)); }

#if TENSOR_CORE == 70

// Four products of 8x4 by 4x8, one for each quad-pair; b is stored column by column.
DEVICE void mma_m8n8k4_row_col(float (&c)[8], unsigned a0, unsigned a1, unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%0,%1,%2,%3,%4,%5,%6,%7}, {%8,%9}, {%10,%11}, "
      "{%0,%1,%2,%3,%4,%5,%6,%7};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7])
      : "r"(a0), "r"(a1), "r"(b0), "r"(b1));
}

// The same with b stored row by row.
DEVICE void mma_m8n8k4_row_row(float (&c)[8], unsigned a0, unsigned a1, unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m8n8k4.row.row.f32.f16.f16.f32 {%0,%1,%2,%3,%4,%5,%6,%7}, {%8,%9}, {%10,%11}, "
      "{%0,%1,%2,%3,%4,%5,%6,%7};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7])
      : "r"(a0), "r"(a1), "r"(b0), "r"(b1));
}

#else

// One product of 16x8 by 8x8.
DEVICE void mma_m16n8k8(float* c, unsigned a0, unsigned a1, unsigned b) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(b));
}

// Four 8x8 matrices; lane i gives the address of row i % 8 of matrix i / 8.
DEVICE void load_matrices(unsigned (&r)[4], Shared<__half> row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row.at)))
               : "memory");
}

// One 8x8 matrix; lanes 0 to 7 give the addresses of its rows.
DEVICE unsigned load_matrix(Shared<__half> row) {
  unsigned r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r)
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row.at)))
               : "memory");
  return r;
}

// One 8x8 matrix, transposed on the way.
DEVICE unsigned load_matrix_transposed(Shared<__half> row) {
  unsigned r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
               : "=r"(r)
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row.at)))
               : "memory");
  return r;
}

#endif
