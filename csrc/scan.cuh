// What the kernels of recurrent_scan share: parameters, products of 64 rows with the weight, and what follows a product.
//
// Forward h_i = f(h_{i-1} W^T + x_i); backward, the frames in reverse, dx_i = f'(h_i) (dx_{i+1} W + dh_i). Both are "the
// former state times a matrix, plus a tensor", summed in float32, and then the activation or its slope. Every state is
// rounded to float16 before the next frame reads it, as the reference does; nothing before that is, so that a product
// beyond 65504 overflows only where the state itself does.
#pragma once

#include "tile.cuh"

// A tensor [video, frame, token, channel] of halves whose last stride is 1; strides are in elements.
struct States {
  half* data;
  long long video, frame, token;

  DEVICE Global<half> at(long long v, long long f, long long t) const {
    return Global<half>{data} + (v * video + f * frame + t * token);
  }
};

// Rows of channels have as many halves as fill chunks of eight; those beyond the last channel are 0.
struct ScanParameters {
  States former;       // the state before the first frame; null where it is 0
  States added;        // x; backward dh
  States states;       // backward h
  States out;          // h; backward dx
  const half* weight;  // [contracted channel, channel]: W^T; backward W
  long long weight_row;
  int frames, tokens, channels;
  int tanh;   // or relu
  int frame;  // of a launch that does one
};

// Rows that a warp works on: a square of the weight that it loads serves two operands.
constexpr int TALL_ROWS = 2 * WARP_ROWS;

// 64 x N of C.
template <int N>
struct TallTile {
  Tile<N> part[2];
};

template <int N>
DEVICE void clear(TallTile<N>& c) {
  clear(c.part[0]);
  clear(c.part[1]);
}

// c += a b: a [64, K], b [K, N].
template <int K, int N>
DEVICE void multiply(TallTile<N>& c, Shared<half> a, int a_stride, Shared<half> b, int b_stride) {
#pragma unroll
  for (int k = 0; k < K / 8; ++k) {
    const Operand upper = load_operand(a + 8 * k, a_stride);
    const Operand lower = load_operand(a + (WARP_ROWS * a_stride + 8 * k), a_stride);
#pragma unroll
    for (int n = 0; n < N / 8; ++n) {
      const Square square = load_square(b + (8 * k * b_stride + 8 * n), b_stride);
      multiply_block(c.part[0].v[n], upper, square);
      multiply_block(c.part[1].v[n], lower, square);
    }
  }
}

// c = combine(c, x) for halves x in shared memory, element by element.
template <int N, class Combination>
DEVICE void combine(TallTile<N>& c, Shared<half> x, int stride, Combination combination) {
#pragma unroll
  for (int part = 0; part < 2; ++part)
#pragma unroll
    for (int b = 0; b < N / 8; ++b)
#pragma unroll
      for (int i = 0; i < 8; i += 2) {
        const int row = WARP_ROWS * part + row_of(i);
        const float2 pair = unpack(read<unsigned>(x + (row * stride + 8 * b + column_of(i))));
        float* const v = c.part[part].v[b] + i;
        v[0] = combination(v[0], pair.x);
        v[1] = combination(v[1], pair.y);
      }
}

// Round to halves and store; columns from `valid` on are 0, whatever came out: of an infinite state, NaN.
template <int N>
DEVICE void store_valid(Shared<half> to, int stride, TallTile<N>& c, int valid) {
#pragma unroll
  for (int part = 0; part < 2; ++part) {
#pragma unroll
    for (int b = 0; b < N / 8; ++b)
#pragma unroll
      for (int i = 0; i < 8; ++i)
        if (8 * b + column_of(i) >= valid) c.part[part].v[b][i] = 0.0f;
    store_rows(to + WARP_ROWS * part * stride, stride, c.part[part]);
  }
}

// (1 - e) / (1 + e), e = exp(-2 |x|), loses its digits near 0, where x - x^3 / 3 takes over: at 0.1 it is off by
// 2 x^4 / 15, a 37th of what rounding to float16 may do. tanhf is exact to 1e-7, at twice the instructions.
DEVICE float tangent(float x) {
  const float magnitude = fabsf(x);
  const float e = exp2_approximate(magnitude * -2.885390081777927f);
  const float far = copysignf(divide_approximate(1.0f - e, 1.0f + e), x);
  return magnitude < 0.1f ? x - x * x * x * (1.0f / 3.0f) : far;
}

// What turns a product into the tile of `out`, in shared memory: the sum with `added`, and the activation or, backward,
// the slope at `states`. The block's tile passes through `staging`, where each warp has 64 rows at `mine`.
template <bool REVERSED, int N, class Given>
DEVICE void finish(const ScanParameters& p, TallTile<N>& c, const Given& added, const Given& states,
                   Shared<half> staging, Shared<half> mine, int stride, int valid) {
  added.put(staging);
  block_barrier();  // what is added is there
  const bool tanh = p.tanh;
  if (REVERSED) {
    combine(c, mine, stride, [](float product, float x) { return product + x; });
    block_barrier();  // ... and has been read
    states.put(staging);
    block_barrier();  // the states are there
    // Chosen, not multiplied: of an infinite gradient a slope of 0 leaves 0. A state of NaN passes it on.
    combine(c, mine, stride, [tanh](float gradient, float h) {
      return tanh ? gradient * (1.0f - h * h) : h <= 0.0f ? 0.0f : gradient;
    });
  } else {
    combine(c, mine, stride, [tanh](float product, float x) {
      const float sum = product + x;
      return tanh ? tangent(sum) : sum < 0.0f ? 0.0f : sum;
    });
  }
  store_valid(mine, stride, c, valid);  // a lane writes where it alone has read
  block_barrier();                      // the tile is whole
}

// A block copies the first rows and columns of ROWS x D halves from shared to global memory.
template <int ROWS, int D, int THREADS>
DEVICE void copy_valid(Global<half> to, long long stride, Shared<half> from, int rows, int columns) {
  for (int chunk = thread_index(); chunk < ROWS * D / 8; chunk += THREADS) {
    const int row = chunk / (D / 8), column = chunk % (D / 8) * 8;
    if (row < rows && column < columns) write(to + (row * stride + column), read<uint4>(from + (row * padded(D) + column)));
  }
}
