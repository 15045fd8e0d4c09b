// What the kernels of temporal_attention share: parameters, the softmax of rows, powers of two for halves.
//
// The operation is bound by memory (all figures computed). Up to 32 frames every tensor is read or written once, and
// the products of a tile of 32 rows by 32 keys, masked ones included, are 16 operations a byte forward and 23 backward,
// at worst (17 frames, which leave 15 rows empty) 30 and 43. A V100 could do 105 to 140 on its matrix units (95 to 125
// TFLOP/s over 0.9 TB/s), a T4 200 (65 over 0.32): what is masked costs time that nobody waits for. Without its matrix
// units, and without masked products, F frames are F / 2 operations a byte forward and 5 F / 7 backward, of which a
// V100 could do 17: at 16 frames 46 and 66 % of all that it can issue, at 32 frames 92 and 131 %, with no instruction
// left to load an operand or to widen a half.
#pragma once

#include "tensor.cuh"
#include "tile.cuh"

struct ForwardParameters {
  View q, k, v, o;
  float scale;
  int frames, tokens, heads, causal;
};

// Nothing of the forward is kept: the softmax is computed again.
struct BackwardParameters {
  View q, k, v, d_o, dq, dk, dv;
  // [videos, frames, tokens, heads], lse in base 2: of long sequences, from the kernel of dq to that of dk and dv.
  float *lse, *delta;
  float scale;
  int frames, tokens, heads, causal;
};

// Columns of a row that take part.
struct Interval {
  int first, last;
  DEVICE bool holds(int column) const { return column >= first && column < last; }
};

// Softmax over the columns of tiles that come one after the other, in base 2; sums are of a lane's own columns.
struct Softmax {
  float maximum[LANE_ROWS], sum[LANE_ROWS];

  DEVICE Softmax() {
#pragma unroll
    for (int r = 0; r < LANE_ROWS; ++r) maximum[r] = -INFINITE, sum[r] = 0.0f;
  }

  // q k^T becomes exp2(logit - maximum), 0 where it takes no part. Results of former tiles are to be multiplied by
  // `correction`. Every row has a key in its first tile. The scale comes after the sum, in float32: q * scale could
  // underflow, q k^T cannot overflow.
  template <int N>
  DEVICE void take(Tile<N>& s, float scale, const Interval (&keys)[LANE_ROWS], float (&correction)[LANE_ROWS]) {
    const float factor = scale * LOG2_E;
    float now[LANE_ROWS];
#pragma unroll
    for (int r = 0; r < LANE_ROWS; ++r) now[r] = maximum[r];
#pragma unroll
    for (int b = 0; b < N / 8; ++b)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int r = lane_row(i);
        s.v[b][i] = keys[r].holds(8 * b + column_of(i)) ? s.v[b][i] * factor : -INFINITE;
        now[r] = fmaxf(now[r], s.v[b][i]);
      }
#pragma unroll
    for (int r = 0; r < LANE_ROWS; ++r) {
      now[r] = row_max(now[r]);
      correction[r] = exp2_approximate(maximum[r] - now[r]);
      maximum[r] = now[r];
      sum[r] *= correction[r];
    }
#pragma unroll
    for (int b = 0; b < N / 8; ++b)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        s.v[b][i] = exp2_approximate(s.v[b][i] - maximum[lane_row(i)]);
        sum[lane_row(i)] += s.v[b][i];
      }
  }
};

// Multiply the rows of a tile.
template <int N>
DEVICE void scale_rows(Tile<N>& c, const float (&by)[LANE_ROWS]) {
#pragma unroll
  for (int b = 0; b < N / 8; ++b)
#pragma unroll
    for (int i = 0; i < 8; ++i) c.v[b][i] *= by[lane_row(i)];
}

// Add the sum of a row's products to a lane's part of it.
template <int N>
DEVICE void add_products_by_row(float (&sums)[LANE_ROWS], const Tile<N>& a, const Tile<N>& b) {
#pragma unroll
  for (int k = 0; k < N / 8; ++k)
#pragma unroll
    for (int i = 0; i < 8; ++i) sums[lane_row(i)] += a.v[k][i] * b.v[k][i];
}

template <int N>
DEVICE void scale_all(Tile<N>& c, float by) {
#pragma unroll
  for (int b = 0; b < N / 8; ++b)
#pragma unroll
    for (int i = 0; i < 8; ++i) c.v[b][i] *= by;
}

// Halves have 40 binary orders: probabilities and dS enter products times a power of two that takes the largest to at
// most 2^15, which is taken out again in float32. That of probabilities is fixed, as none is above 1.
constexpr float LARGEST_EXPONENT = 15.0f;

// The exponent for a warp's tile of dS: what 0 and what is not finite get does not matter, but has to be one.
template <int N>
DEVICE float largest_exponent(const Tile<N>& c) {
  float largest = 0.0f;
#pragma unroll
  for (int b = 0; b < N / 8; ++b)
#pragma unroll
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(c.v[b][i]));
  return fminf(fmaxf(LARGEST_EXPONENT - ceilf(log2f(warp_max(largest))), -60.0f), 60.0f);
}

// The exponent of a sum over tiles of dS: the smallest so far. The sum follows it.
struct RunningExponent {
  float exponent = 60.0f;

  template <int M, int N>
  DEVICE void take(Tile<M>& next, Tile<N>& sum) {
    const float exponent_of_next = largest_exponent(next);
    if (exponent_of_next < exponent) {
      scale_all(sum, exp2f(exponent_of_next - exponent));
      exponent = exponent_of_next;
    }
    scale_all(next, exp2f(exponent));
  }
  DEVICE float back() const { return exp2f(-exponent); }
};
