// Tiles of a warp: 32 rows of A and of C, any multiple of 8 columns. A and B are halves, C is float32.
//
// On compute capability 7.0 the four quad-pairs of m8n8k4 lie below each other (32x8x4 an instruction), so that the
// granularity is 8 in N and K: 40, 80 and 160 are exact. On 7.5 two m16n8k8 lie below each other (32x8x8).
// Lane maps: PTX ISA, "Matrix Fragments for mma.m8n8k4" and "... for mma.m16n8k8".
#pragma once

#include "tensor.cuh"

constexpr int WARP_ROWS = 32;

// Distance of rows in shared memory, in halves: an odd number of 16-byte chunks, so that eight rows meet no bank twice.
DEVICE constexpr int padded(int columns) { return columns / 8 % 2 ? columns : columns + 8; }

// 32 x 8 of A.
struct Operand {
  unsigned r[4];
};

// 8 x 8 of B, stored [k, column of c].
struct Square {
  unsigned r[4];
};

// 32 x N of C: element i of column block b is at row `row_of(i)`, column `8 * b + column_of(i)`. Elements 2j and 2j + 1
// are neighbours in a row, the lane's row `lane_row(2j)`.
template <int N>
struct Tile {
  float v[N / 8][8];
};

#if TENSOR_CORE == 70

constexpr int LANE_ROWS = 2;  // rows that a lane has elements of

DEVICE int quad_pair_row() { return 8 * (lane_index() / 4 % 4) + 4 * (lane_index() / 16); }
DEVICE int row_of(int i) { return quad_pair_row() + (lane_index() & 1) + (i & 2); }
DEVICE int column_of(int i) { return (i & 4) + (lane_index() & 2) + (i & 1); }
// Which of the lane's rows element i is in.
DEVICE constexpr int lane_row(int i) { return i / 2 % 2; }

DEVICE Operand load_operand(Shared<half> a, int stride) {
  const uint4 r = read<uint4>(a + (quad_pair_row() + lane_index() % 4) * stride);
  return {{r.x, r.y, r.z, r.w}};
}

// c += a b^T for b [8, 8] stored [column of c, k].
DEVICE void multiply_block_transposed(float (&c)[8], const Operand& a, Shared<half> b, int stride) {
  const uint4 r = read<uint4>(b + (lane_index() % 4 + 4 * (lane_index() / 16)) * stride);
  mma_m8n8k4_row_col(c, a.r[0], a.r[1], r.x, r.y);
  mma_m8n8k4_row_col(c, a.r[2], a.r[3], r.z, r.w);
}

DEVICE Square load_square(Shared<half> b, int stride) {
  const Shared<half> corner = b + (lane_index() % 4) * stride + 4 * (lane_index() / 16);
  const uint2 low = read<uint2>(corner), high = read<uint2>(corner + 4 * stride);
  return {{low.x, low.y, high.x, high.y}};
}

DEVICE void multiply_block(float (&c)[8], const Operand& a, const Square& b) {
  mma_m8n8k4_row_row(c, a.r[0], a.r[1], b.r[0], b.r[1]);
  mma_m8n8k4_row_row(c, a.r[2], a.r[3], b.r[2], b.r[3]);
}

template <class Reduction>
DEVICE float across_row(float x, Reduction reduction) {
  return reduction(x, shuffle_xor(x, 2));
}

#else

constexpr int LANE_ROWS = 4;

DEVICE int row_of(int i) { return 16 * (i / 4) + lane_index() / 4 + 8 * (i / 2 % 2); }
DEVICE int column_of(int i) { return 2 * (lane_index() % 4) + (i & 1); }
DEVICE constexpr int lane_row(int i) { return i / 2; }

DEVICE Operand load_operand(Shared<half> a, int stride) {
  Operand x;
  load_matrices(x.r, a + lane_index() * stride);
  return x;
}

DEVICE void multiply_block_transposed(float (&c)[8], const Operand& a, Shared<half> b, int stride) {
  const unsigned r = load_matrix(b + (lane_index() % 8) * stride);
  mma_m16n8k8(c, a.r[0], a.r[1], r);
  mma_m16n8k8(c + 4, a.r[2], a.r[3], r);
}

DEVICE Square load_square(Shared<half> b, int stride) {
  return {{load_matrix_transposed(b + (lane_index() % 8) * stride)}};
}

DEVICE void multiply_block(float (&c)[8], const Operand& a, const Square& b) {
  mma_m16n8k8(c, a.r[0], a.r[1], b.r[0]);
  mma_m16n8k8(c + 4, a.r[2], a.r[3], b.r[0]);
}

template <class Reduction>
DEVICE float across_row(float x, Reduction reduction) {
  x = reduction(x, shuffle_xor(x, 1));
  return reduction(x, shuffle_xor(x, 2));
}

#endif

DEVICE float row_max(float x) {
  return across_row(x, [](float a, float b) { return fmaxf(a, b); });
}

DEVICE float row_sum(float x) {
  return across_row(x, [](float a, float b) { return a + b; });
}

DEVICE float warp_max(float x) {
#pragma unroll
  for (int mask = 16; mask; mask /= 2) x = fmaxf(x, shuffle_xor(x, mask));
  return x;
}

// A of a product, read from shared memory at each use.
struct InShared {
  Shared<half> a;
  int stride;
  DEVICE Operand operator[](int block) const { return load_operand(a + 8 * block, stride); }
};

// A of a product, kept in K / 2 registers.
template <int K>
struct InRegisters {
  Operand x[K / 8];
  DEVICE void load(Shared<half> a, int stride) {
#pragma unroll
    for (int k = 0; k < K / 8; ++k) x[k] = load_operand(a + 8 * k, stride);
  }
  DEVICE const Operand& operator[](int block) const { return x[block]; }
};

template <int N>
DEVICE void clear(Tile<N>& c) {
#pragma unroll
  for (int b = 0; b < N / 8; ++b)
#pragma unroll
    for (int i = 0; i < 8; ++i) c.v[b][i] = 0.0f;
}

// c += a b^T: a [32, K], b [N, K].
template <int K, int N, class A>
DEVICE void multiply_transposed(Tile<N>& c, const A& a, Shared<half> b, int stride) {
#pragma unroll
  for (int k = 0; k < K / 8; ++k) {
    const Operand x = a[k];
#pragma unroll
    for (int n = 0; n < N / 8; ++n) multiply_block_transposed(c.v[n], x, b + (8 * n * stride + 8 * k), stride);
  }
}

// c += a b: a [32, K], b [K, N].
template <int K, int N, class A>
DEVICE void multiply(Tile<N>& c, const A& a, Shared<half> b, int stride) {
#pragma unroll
  for (int k = 0; k < K / 8; ++k) {
    const Operand x = a[k];
#pragma unroll
    for (int n = 0; n < N / 8; ++n) multiply_block(c.v[n], x, load_square(b + (8 * k * stride + 8 * n), stride));
  }
}

// Round a tile to halves and store its rows.
template <int N>
DEVICE void store_rows(Shared<half> to, int stride, const Tile<N>& c) {
#pragma unroll
  for (int b = 0; b < N / 8; ++b)
#pragma unroll
    for (int i = 0; i < 8; i += 2)
      write(to + (row_of(i) * stride + 8 * b + column_of(i)), pack(c.v[b][i], c.v[b][i + 1]));
}

// Round a tile to halves and store its transpose: the tile's columns become rows.
template <int N>
DEVICE void store_columns(Shared<half> to, int stride, const Tile<N>& c) {
#pragma unroll
  for (int b = 0; b < N / 8; ++b)
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
      const unsigned pair = pack(c.v[b][i], c.v[b][i + 1]);
      const Shared<half> place = to + ((8 * b + column_of(i)) * stride + row_of(i));
      write(place, static_cast<unsigned short>(pair));
      write(place + stride, static_cast<unsigned short>(pair >> 16));
    }
}

// ROWS x D halves on their way from global to shared memory: loads are issued early and stored late. A thread keeps to
// one column, so that one address serves all its loads.
template <int ROWS, int D, int THREADS>
struct InFlight {
  static constexpr int ACROSS = D / 8;
  static constexpr int STEP = THREADS / ACROSS;  // rows at a time; the threads that are left over rest
  static constexpr int EACH = (ROWS + STEP - 1) / STEP;
  uint4 r[EACH];

  // The first of the eight columns that a thread keeps to.
  static DEVICE int column() { return thread_index() % ACROSS * 8; }

  // Rows from `valid` on are zero.
  DEVICE void fetch(Global<const half> from, long long stride, int valid) {
    const int row = thread_index() / ACROSS;
    from = from + (row * stride + column());
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      r[i] = make_uint4(0, 0, 0, 0);
      if (row < STEP && i * STEP + row < ROWS && i * STEP + row < valid) r[i] = read<uint4>(from);
      from = from + STEP * stride;
    }
  }

  DEVICE void put(Shared<half> to) const {
    const int row = thread_index() / ACROSS;
    to = to + (row * padded(D) + column());
#pragma unroll
    for (int i = 0; i < EACH; ++i)
      if (row < STEP && i * STEP + row < ROWS) write(to + i * STEP * padded(D), r[i]);
  }
};

// A block copies ROWS x D halves from global to shared memory.
template <int ROWS, int D, int THREADS>
DEVICE void copy_rows(Shared<half> to, Global<const half> from, long long stride, int valid) {
  for (int chunk = thread_index(); chunk < ROWS * D / 8; chunk += THREADS) {
    const int row = chunk / (D / 8), column = chunk % (D / 8) * 8;
    uint4 r = make_uint4(0, 0, 0, 0);
    if (row < valid) r = read<uint4>(from + (row * stride + column));
    write(to + (row * padded(D) + column), r);
  }
}

// A warp copies its 32 rows of D halves from shared to global memory, those before `valid`.
template <int D>
DEVICE void copy_warp_rows(Global<half> to, long long stride, Shared<half> from, int valid) {
  for (int chunk = lane_index(); chunk < WARP_ROWS * D / 8; chunk += 32) {
    const int row = chunk / (D / 8), column = chunk % (D / 8) * 8;
    if (row < valid) write(to + (row * stride + column), read<uint4>(from + (row * padded(D) + column)));
  }
}
