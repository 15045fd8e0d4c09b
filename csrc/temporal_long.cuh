// What the kernels of temporal_attention for more than 32 frames share: a block's rows are frames of one token, and it
// walks over all others.
#pragma once

#include "temporal.cuh"

// What a block works on: rows from `first` on, of one token of one head of one video.
struct Rows {
  int first, head, token, video;

  DEVICE Rows(int size, int frames, int tokens, int heads) {
    Work work{block_index()};
    // Blocks of one token run at the same time and find its keys in the cache.
    first = work.next((frames + size - 1) / size) * size;
    head = work.next(heads);
    token = work.next(tokens);
    video = static_cast<int>(work.rest);
  }

  DEVICE Global<half> of(const View& t, int frame) const { return t.at(video, frame, token, head); }
};

// Rows of two tensors, SIZE at a time, that a block brings into shared memory: the next are in flight while it works.
// At 160 channels they are not: up to 404 bytes were spilled.
template <int SIZE, int D, int THREADS>
struct TwoStreams {
  static constexpr bool EARLY = D < 160;
  Global<const half> a, b;
  long long a_stride, b_stride;
  int frames, next;
  Shared<half> a_tile, b_tile;
  InFlight<SIZE, D, THREADS> a_rows, b_rows;

  DEVICE TwoStreams(const Rows& rows, const View& a, Shared<half> a_tile, const View& b, Shared<half> b_tile)
      : a(constant(rows.of(a, 0))), b(constant(rows.of(b, 0))), a_stride(a.frame), b_stride(b.frame), a_tile(a_tile),
        b_tile(b_tile) {}

  // Begin with `first`, end before `end`; rows from there on are zero.
  DEVICE void start(int first, int end) {
    next = first;
    frames = end;
    if (EARLY) fetch();
  }

  DEVICE void advance() {
    if (!EARLY) fetch();
    block_barrier();  // the former rows have been read
    a_rows.put(a_tile);
    b_rows.put(b_tile);
    next += SIZE;
    if (EARLY && next < frames) fetch();
    block_barrier();  // these are there
  }

 private:
  DEVICE void fetch() {
    a_rows.fetch(a + next * a_stride, a_stride, frames - next);
    b_rows.fetch(b + next * b_stride, b_stride, frames - next);
  }
};

// The first frame to which queries up to `last` do not attend.
DEVICE int end_of_keys(int last, int frames, bool causal) { return causal && last < frames ? last + 1 : frames; }

// Keys from `first` on that the rows of a warp attend to.
DEVICE void keys_of_rows(Interval (&keys)[LANE_ROWS], int warp_query, int first, int frames, bool causal) {
#pragma unroll
  for (int r = 0; r < LANE_ROWS; ++r)
    keys[r] = {0, end_of_keys(warp_query + row_of(2 * r), frames, causal) - first};
}
