// recurrent_scan a frame at a time: one product with the weight, and what follows it, by tiles of tokens and columns.
#include "scan.cuh"

// 32 channels of the former state and of the weight at a time, the next on their way while these are multiplied.
template <int ROWS_, int COLUMNS_, int WARPS_>
struct FrameTile {
  static constexpr int ROWS = ROWS_;
  static constexpr int COLUMNS = COLUMNS_;
  static constexpr int WARPS = WARPS_;
  static constexpr int THREADS = 32 * WARPS;
  static constexpr int COLUMN_GROUPS = WARPS / (ROWS / TALL_ROWS);
  static constexpr int PART = COLUMNS / COLUMN_GROUPS;
  static constexpr int DEPTH = 32;
  static constexpr int FORMER_ROW = padded(DEPTH);
  static constexpr int ROW = padded(COLUMNS);
  static constexpr int FORMER = ROWS * FORMER_ROW;
  static constexpr int WEIGHT = DEPTH * ROW;

  static constexpr int FORMERS = 0;
  static constexpr int WEIGHTS = FORMERS + 2 * 2 * FORMER;
  static constexpr int STAGING = 0;  // when the products are done
  static constexpr int STAGED = STAGING + 2 * ROWS * ROW;
  static constexpr int MULTIPLIED = WEIGHTS + 2 * 2 * WEIGHT;
  static constexpr int SHARED = MULTIPLIED > STAGED ? MULTIPLIED : STAGED;
};

// 64 operations a byte read from the second cache: a V100's 100 TFLOP/s ask 1.6 TB/s of its 2.
using Wide = FrameTile<128, 128, 8>;
// Four times as many blocks, where wide ones would not fill the chip; 32 operations a byte, 64 TFLOP/s at most.
using Narrow = FrameTile<64, 64, 4>;

template <class T, bool REVERSED>
DEVICE void one_frame(const ScanParameters& p) {
  Work work{block_index()};
  const int first_column = work.next((p.channels + T::COLUMNS - 1) / T::COLUMNS) * T::COLUMNS;
  const int first_token = work.next((p.tokens + T::ROWS - 1) / T::ROWS) * T::ROWS;
  const long long video = work.rest;
  const int left = p.tokens - first_token, columns = p.channels - first_column;
  const int warp_row = warp_index() / T::COLUMN_GROUPS * TALL_ROWS;
  const int warp_column = warp_index() % T::COLUMN_GROUPS * T::PART;

  // Only the first frame of a scan reads `former`: what precedes the others is in `out`.
  const int frame = p.frame, before = REVERSED ? frame + 1 : frame - 1;
  const bool first = REVERSED ? before == p.frames : before < 0;

  TallTile<T::PART> c;
  clear(c);
  if (!first || p.former.data) {
    const auto formers = shared_array<half>(T::FORMERS, 2 * T::FORMER);
    const auto weights = shared_array<half>(T::WEIGHTS, 2 * T::WEIGHT);
    const auto former =
        constant(first ? p.former.at(video, 0, first_token) : p.out.at(video, before, first_token));
    const long long former_token = first ? p.former.token : p.out.token;
    const Global<const half> weight = Global<const half>{p.weight} + first_column;
    InFlight<T::ROWS, T::DEPTH, T::THREADS> a;
    InFlight<T::DEPTH, T::COLUMNS, T::THREADS> b;
    // Of a thread's column: nothing where there is none.
    const int contracted = b.column() < columns ? p.channels : 0;
    a.fetch(former, former_token, a.column() < p.channels ? left : 0);
    b.fetch(weight, p.weight_row, contracted);
    a.put(formers);
    b.put(weights);
    block_barrier();
    int current = 0;
    for (int k = 0; k < p.channels; k += T::DEPTH) {
      const int next = k + T::DEPTH;
      const bool more = next < p.channels;
      if (more) {
        a.fetch(former + next, former_token, next + a.column() < p.channels ? left : 0);
        b.fetch(weight + next * p.weight_row, p.weight_row, contracted - next);
      }
      multiply<T::DEPTH>(c, formers + (current * T::FORMER + warp_row * T::FORMER_ROW), T::FORMER_ROW,
                         weights + (current * T::WEIGHT + warp_column), T::ROW);
      current ^= 1;
      if (more) {
        a.put(formers + current * T::FORMER);
        b.put(weights + current * T::WEIGHT);
      }
      block_barrier();  // the next ones are there, these are free
    }
  }

  // Fetched only now: in flight from the start they cost 20 to 40 registers, and a V100 one of its four narrow blocks.
  InFlight<T::ROWS, T::COLUMNS, T::THREADS> added, states;
  const int tokens = added.column() < columns ? left : 0;
  added.fetch(constant(p.added.at(video, frame, first_token) + first_column), p.added.token, tokens);
  if (REVERSED) states.fetch(constant(p.states.at(video, frame, first_token) + first_column), p.states.token, tokens);
  const auto staging = shared_array<half>(T::STAGING, T::ROWS * T::ROW);
  finish<REVERSED>(p, c, added, states, staging, staging + (warp_row * T::ROW + warp_column), T::ROW,
                   columns - warp_column);
  copy_valid<T::ROWS, T::COLUMNS, T::THREADS>(p.out.at(video, frame, first_token) + first_column, p.out.token, staging,
                                              left, columns);
}

#define FRAME(Of, COLUMNS)                                                                    \
  LAUNCH(recurrent_scan_frame_fwd_kernel_n##COLUMNS, Of::THREADS, Of::ROWS, Of::SHARED)       \
  KERNEL(recurrent_scan_frame_fwd_kernel_n##COLUMNS, ScanParameters, Of::THREADS, 1) {        \
    one_frame<Of, false>(p);                                                                  \
  }                                                                                           \
  LAUNCH(recurrent_scan_frame_bwd_kernel_n##COLUMNS, Of::THREADS, Of::ROWS, Of::SHARED)       \
  KERNEL(recurrent_scan_frame_bwd_kernel_n##COLUMNS, ScanParameters, Of::THREADS, 1) {        \
    one_frame<Of, true>(p);                                                                   \
  }

FRAME(Narrow, 64)
FRAME(Wide, 128)
