// Tensors in global memory, and a block's place among what a launch works on.
#pragma once

#include <machine.cuh>

using half = __half;

constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

// A tensor [video, frame, token, head, D] of halves whose last stride is 1; strides are in elements.
struct View {
  half* data;
  long long video, frame, token, head;

  DEVICE Global<half> at(long long v, long long f, long long t, long long h) const {
    return Global<half>{data} + (v * video + f * frame + t * token + h * head);
  }
};

DEVICE Global<const half> constant(Global<half> g) { return {g.at}; }

// What a block works on: `block_index()` taken apart, the first extent fastest.
struct Work {
  long long rest;
  DEVICE int next(int extent) {
    const long long quotient = rest / extent;
    const int i = static_cast<int>(rest - quotient * extent);
    rest = quotient;
    return i;
  }
};
