// temporal_attention of more than 32 frames, forward: a block of queries of one token walks over the keys.
#include "temporal_long.cuh"

// Two warps and 16 keys from 128 channels on: at 160, four warps need 60 KB of shared memory, which leaves one block on
// a V100, and 32 keys 75 KB.
template <int D>
struct ForwardTile {
  static constexpr int WARPS = D >= 128 ? 2 : 4;
  static constexpr int QUERIES = WARP_ROWS * WARPS;
  static constexpr int THREADS = 32 * WARPS;
  static constexpr int KEYS = D >= 128 ? 16 : 32;
  static constexpr int ROW = padded(D);
  static constexpr int P_ROW = padded(KEYS);

  static constexpr int Q = 0;
  static constexpr int K = Q + 2 * QUERIES * ROW;
  static constexpr int V = K + 2 * KEYS * ROW;
  static constexpr int P = V + 2 * KEYS * ROW;
  static constexpr int SHARED = P + 2 * QUERIES * P_ROW;
};

template <int D>
DEVICE void forward(const ForwardParameters& p) {
  using T = ForwardTile<D>;
  const Rows rows(T::QUERIES, p.frames, p.tokens, p.heads);
  const int warp_row = warp_index() * WARP_ROWS, warp_query = rows.first + warp_row;
  const int end = end_of_keys(rows.first + T::QUERIES - 1, p.frames, p.causal);

  const auto q_tile = shared_array<half>(T::Q, T::QUERIES * T::ROW);
  const auto k_tile = shared_array<half>(T::K, T::KEYS * T::ROW);
  const auto v_tile = shared_array<half>(T::V, T::KEYS * T::ROW);
  const auto p_rows = shared_array<half>(T::P, T::QUERIES * T::P_ROW) + warp_row * T::P_ROW;
  const InShared q{q_tile + warp_row * T::ROW, T::ROW};

  TwoStreams<T::KEYS, D, T::THREADS> stream(rows, p.k, k_tile, p.v, v_tile);
  stream.start(0, end);
  copy_rows<T::QUERIES, D, T::THREADS>(q_tile, constant(rows.of(p.q, rows.first)), p.q.frame, p.frames - rows.first);
  Softmax softmax;
  Tile<D> o;
  clear(o);
  for (int first = 0; first < end; first += T::KEYS) {
    stream.advance();
    Tile<T::KEYS> s;
    clear(s);
    multiply_transposed<D>(s, q, k_tile, T::ROW);
    Interval keys[LANE_ROWS];
    keys_of_rows(keys, warp_query, first, p.frames, p.causal);
    float correction[LANE_ROWS];
    softmax.take(s, p.scale, keys, correction);
    scale_rows(o, correction);
    store_rows(p_rows, T::P_ROW, s);
    warp_barrier();
    multiply<T::KEYS>(o, InShared{p_rows, T::P_ROW}, v_tile, T::ROW);
  }
#pragma unroll
  for (int r = 0; r < LANE_ROWS; ++r) softmax.sum[r] = 1.0f / row_sum(softmax.sum[r]);
  scale_rows(o, softmax.sum);
  warp_barrier();  // the queries in shared memory, which o replaces, have been read
  store_rows(q.a, T::ROW, o);
  warp_barrier();
  copy_warp_rows<D>(rows.of(p.o, warp_query), p.o.frame, q.a, p.frames - warp_query);
}

#define FORWARD(D)                                                                                                  \
  LAUNCH(temporal_attention_long_fwd_kernel_d##D, ForwardTile<D>::THREADS, ForwardTile<D>::QUERIES,                 \
         ForwardTile<D>::SHARED)                                                                                    \
  KERNEL(temporal_attention_long_fwd_kernel_d##D, ForwardParameters, ForwardTile<D>::THREADS, 1) { forward<D>(p); }

FORWARD(32)
FORWARD(40)
FORWARD(64)
FORWARD(80)
FORWARD(128)
FORWARD(160)
