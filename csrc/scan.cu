// recurrent_scan by walking: a block keeps 64 tokens through all frames, their state in shared memory.
//
// Tokens do not depend on each other, so that no block waits for another. The weight, which no multiprocessor can hold,
// streams from the second cache in slabs of 16 rows, the next one on its way while one is multiplied.
#include "scan.cuh"

// 64 tokens ask 64 operations of a byte of the weight: at a V100's 1024 a clock and multiprocessor 2 TB/s, which its
// second cache just has. 128 tokens would ask half of that, but their state alone is 84 KB, more than a T4 has, and
// leaves 16 warps 128 registers each where these need more (computed). A warp takes all 64 rows and an eighth of the
// columns: the block loads 56 operands for 8 channels; 88 with 32 rows and a quarter. Slabs of 32 rows, twice,
// are beyond 64 KB; one at a time would wait at a second barrier.
template <int WIDTH>
struct WalkTile {
  static constexpr int WARPS = 8;
  static constexpr int THREADS = 32 * WARPS;
  static constexpr int PART = WIDTH / WARPS;
  static constexpr int SLAB = 16;
  static constexpr int ROW = padded(WIDTH);

  static constexpr int STATE = 0;
  static constexpr int SLABS = STATE + 2 * TALL_ROWS * ROW;
  static constexpr int SHARED = SLABS + 2 * 2 * SLAB * ROW;
};

template <int WIDTH, bool REVERSED>
DEVICE void walk(const ScanParameters& p) {
  using T = WalkTile<WIDTH>;
  Work work{block_index()};
  const int first_token = work.next((p.tokens + TALL_ROWS - 1) / TALL_ROWS) * TALL_ROWS;
  const long long video = work.rest;
  const int left = p.tokens - first_token, first_column = warp_index() * T::PART;

  const auto state = shared_array<half>(T::STATE, TALL_ROWS * T::ROW);
  const auto slabs = shared_array<half>(T::SLABS, 2 * T::SLAB * T::ROW);
  const Global<const half> weight{p.weight};
  InFlight<TALL_ROWS, WIDTH, T::THREADS> added, states;
  InFlight<T::SLAB, WIDTH, T::THREADS> slab;
  // Of a thread's column: nothing where there is none.
  const int tokens = added.column() < p.channels ? left : 0;
  const int contracted = slab.column() < p.channels ? p.channels : 0;

  bool carried = p.former.data;
  if (carried) {
    added.fetch(constant(p.former.at(video, 0, first_token)), p.former.token, tokens);
    added.put(state);
  }
  slab.fetch(weight, p.weight_row, contracted);
  slab.put(slabs);
  block_barrier();

  int current = 0;
  for (int step = 0; step < p.frames; ++step) {
    const int frame = REVERSED ? p.frames - 1 - step : step;
    added.fetch(constant(p.added.at(video, frame, first_token)), p.added.token, tokens);
    if (REVERSED) states.fetch(constant(p.states.at(video, frame, first_token)), p.states.token, tokens);
    TallTile<T::PART> c;
    clear(c);
    if (carried) {
      for (int k = 0; k < p.channels; k += T::SLAB) {
        // After the last slab the first one follows, for the next frame.
        const int next = k + T::SLAB < p.channels ? k + T::SLAB : 0;
        slab.fetch(weight + next * p.weight_row, p.weight_row, contracted - next);
        multiply<T::SLAB>(c, state + k, T::ROW, slabs + (current * T::SLAB * T::ROW + first_column), T::ROW);
        current ^= 1;
        slab.put(slabs + current * T::SLAB * T::ROW);
        block_barrier();  // the next slab is there; this one, and after the last the state, are free
      }
    }
    carried = true;
    finish<REVERSED>(p, c, added, states, state, state + first_column, T::ROW, p.channels - first_column);
    copy_valid<TALL_ROWS, WIDTH, T::THREADS>(p.out.at(video, frame, first_token), p.out.token, state, left, p.channels);
  }
}

#define WALK(WIDTH)                                                                                             \
  LAUNCH(recurrent_scan_fwd_kernel_c##WIDTH, WalkTile<WIDTH>::THREADS, TALL_ROWS, WalkTile<WIDTH>::SHARED)      \
  KERNEL(recurrent_scan_fwd_kernel_c##WIDTH, ScanParameters, WalkTile<WIDTH>::THREADS, 1) {                     \
    walk<WIDTH, false>(p);                                                                                      \
  }                                                                                                             \
  LAUNCH(recurrent_scan_bwd_kernel_c##WIDTH, WalkTile<WIDTH>::THREADS, TALL_ROWS, WalkTile<WIDTH>::SHARED)      \
  KERNEL(recurrent_scan_bwd_kernel_c##WIDTH, ScanParameters, WalkTile<WIDTH>::THREADS, 1) {                     \
    walk<WIDTH, true>(p);                                                                                       \
  }

WALK(64)
WALK(128)
WALK(256)
WALK(320)
