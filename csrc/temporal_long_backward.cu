// temporal_attention of more than 32 frames, backward, without atomics: by blocks of queries (dq, and for the other
// kernel the softmax' log-sum-exp and sum of P dP), then by blocks of keys (dk, dv). The first reads the keys twice: dS
// needs the sum of P dP over all of them.
#include "temporal_long.cuh"

// Two warps from 64 channels on: four need 56 KB of shared memory at 64, which leaves one block on a V100, and 67 at
// 80.
template <int D>
struct QueryGradientTile {
  static constexpr int WARPS = D >= 64 ? 2 : 4;
  static constexpr int QUERIES = WARP_ROWS * WARPS;
  static constexpr int THREADS = 32 * WARPS;
  static constexpr int KEYS = D >= 128 ? 16 : 32;
  static constexpr int ROW = padded(D);
  static constexpr int S_ROW = padded(KEYS);

  static constexpr int Q = 0;
  static constexpr int D_O = Q + 2 * QUERIES * ROW;
  static constexpr int K = D_O + 2 * QUERIES * ROW;
  static constexpr int V = K + 2 * KEYS * ROW;
  static constexpr int D_S = V + 2 * KEYS * ROW;
  static constexpr int SHARED = D_S + 2 * QUERIES * S_ROW;
};

template <int D>
DEVICE void query_gradient(const BackwardParameters& p) {
  using T = QueryGradientTile<D>;
  const Rows rows(T::QUERIES, p.frames, p.tokens, p.heads);
  const int warp_row = warp_index() * WARP_ROWS, warp_query = rows.first + warp_row;
  const int end = end_of_keys(rows.first + T::QUERIES - 1, p.frames, p.causal);

  const auto q_tile = shared_array<half>(T::Q, T::QUERIES * T::ROW);
  const auto do_tile = shared_array<half>(T::D_O, T::QUERIES * T::ROW);
  const auto k_tile = shared_array<half>(T::K, T::KEYS * T::ROW);
  const auto v_tile = shared_array<half>(T::V, T::KEYS * T::ROW);
  const auto ds_rows = shared_array<half>(T::D_S, T::QUERIES * T::S_ROW) + warp_row * T::S_ROW;
  const InShared q{q_tile + warp_row * T::ROW, T::ROW}, d_o{do_tile + warp_row * T::ROW, T::ROW};

  TwoStreams<T::KEYS, D, T::THREADS> stream(rows, p.k, k_tile, p.v, v_tile);
  stream.start(0, end);
  const int left = p.frames - rows.first;
  copy_rows<T::QUERIES, D, T::THREADS>(q_tile, constant(rows.of(p.q, rows.first)), p.q.frame, left);
  copy_rows<T::QUERIES, D, T::THREADS>(do_tile, constant(rows.of(p.d_o, rows.first)), p.d_o.frame, left);

  Softmax softmax;
  float lse[LANE_ROWS], delta[LANE_ROWS] = {};
  Interval keys[LANE_ROWS];
  for (int first = 0; first < end; first += T::KEYS) {
    stream.advance();
    Tile<T::KEYS> s, dp;
    clear(s);
    clear(dp);
    multiply_transposed<D>(s, q, k_tile, T::ROW);
    multiply_transposed<D>(dp, d_o, v_tile, T::ROW);
    keys_of_rows(keys, warp_query, first, p.frames, p.causal);
    float correction[LANE_ROWS];
    softmax.take(s, p.scale, keys, correction);
#pragma unroll
    for (int r = 0; r < LANE_ROWS; ++r) delta[r] *= correction[r];
    add_products_by_row(delta, s, dp);
  }
#pragma unroll
  for (int r = 0; r < LANE_ROWS; ++r) {
    const float sum = row_sum(softmax.sum[r]);
    lse[r] = softmax.maximum[r] + log2f(sum);
    delta[r] = row_sum(delta[r]) / sum;
    const int query = warp_query + row_of(2 * r);
    const long long row =
        ((static_cast<long long>(rows.video) * p.frames + query) * p.tokens + rows.token) * p.heads + rows.head;
    // Every lane of a row has the same: one of them writes.
    if (query < p.frames && column_of(0) == 0) {
      write(Global<float>{p.lse} + row, lse[r]);
      write(Global<float>{p.delta} + row, delta[r]);
    }
  }

  stream.start(0, end);
  RunningExponent running;
  Tile<D> dq;
  clear(dq);
  for (int first = 0; first < end; first += T::KEYS) {
    stream.advance();
    Tile<T::KEYS> s, ds;
    clear(s);
    clear(ds);
    multiply_transposed<D>(s, q, k_tile, T::ROW);
    multiply_transposed<D>(ds, d_o, v_tile, T::ROW);
    keys_of_rows(keys, warp_query, first, p.frames, p.causal);
    const float factor = p.scale * LOG2_E;
#pragma unroll
    for (int b = 0; b < T::KEYS / 8; ++b)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int r = lane_row(i);
        const float probability =
            keys[r].holds(8 * b + column_of(i)) ? exp2_approximate(s.v[b][i] * factor - lse[r]) : 0.0f;
        ds.v[b][i] = probability * (ds.v[b][i] - delta[r]);
      }
    running.take(ds, dq);
    store_rows(ds_rows, T::S_ROW, ds);
    warp_barrier();
    multiply<T::KEYS>(dq, InShared{ds_rows, T::S_ROW}, k_tile, T::ROW);
  }
  scale_all(dq, p.scale * running.back());
  warp_barrier();  // the queries in shared memory, which dq replaces, have been read
  store_rows(q.a, T::ROW, dq);
  warp_barrier();
  copy_warp_rows<D>(rows.of(p.dq, warp_query), p.dq.frame, q.a, left - warp_row);
}

// Of two warps that share 32 keys one computes dv and one dk: neither has more than D accumulators, and they exchange
// nothing. One product of five, K Q^T, is computed twice. Two warps at 160: with four, 48 bytes are spilled on 7.0.
template <int D>
struct KeyGradientTile {
  static constexpr int WARPS = D >= 160 ? 2 : 4;
  static constexpr int KEYS = WARP_ROWS * WARPS / 2;
  static constexpr int THREADS = 32 * WARPS;
  static constexpr int QUERIES = D >= 128 ? 16 : 32;
  static constexpr int ROW = padded(D);
  static constexpr int S_ROW = padded(QUERIES);

  static constexpr int K = 0;
  static constexpr int V = K + 2 * KEYS * ROW;
  static constexpr int Q = V + 2 * KEYS * ROW;
  static constexpr int D_O = Q + 2 * QUERIES * ROW;
  static constexpr int S = D_O + 2 * QUERIES * ROW;
  static constexpr int LSE = S + 2 * WARP_ROWS * WARPS * S_ROW;
  static constexpr int DELTA = LSE + 4 * QUERIES;
  static constexpr int SHARED = DELTA + 4 * QUERIES;
};

template <int D>
DEVICE void key_gradient(const BackwardParameters& p) {
  using T = KeyGradientTile<D>;
  const Rows rows(T::KEYS, p.frames, p.tokens, p.heads);
  const int warp_row = warp_index() / 2 * WARP_ROWS, warp_key = rows.first + warp_row;
  const bool of_dk = warp_index() % 2;

  const auto k_tile = shared_array<half>(T::K, T::KEYS * T::ROW);
  const auto v_tile = shared_array<half>(T::V, T::KEYS * T::ROW);
  const auto q_tile = shared_array<half>(T::Q, T::QUERIES * T::ROW);
  const auto do_tile = shared_array<half>(T::D_O, T::QUERIES * T::ROW);
  const auto s_rows =
      shared_array<half>(T::S, WARP_ROWS * T::WARPS * T::S_ROW) + warp_index() * WARP_ROWS * T::S_ROW;
  const auto lses = shared_array<float>(T::LSE, T::QUERIES);
  const auto deltas = shared_array<float>(T::DELTA, T::QUERIES);
  const InShared k{k_tile + warp_row * T::ROW, T::ROW}, v{v_tile + warp_row * T::ROW, T::ROW};

  // Before the first key no query attends to it where attention is causal.
  const int first_query = p.causal ? rows.first / T::QUERIES * T::QUERIES : 0;
  TwoStreams<T::QUERIES, D, T::THREADS> stream(rows, p.q, q_tile, p.d_o, do_tile);
  stream.start(first_query, p.frames);
  const int left = p.frames - rows.first;
  copy_rows<T::KEYS, D, T::THREADS>(k_tile, constant(rows.of(p.k, rows.first)), p.k.frame, left);
  copy_rows<T::KEYS, D, T::THREADS>(v_tile, constant(rows.of(p.v, rows.first)), p.v.frame, left);

  RunningExponent running;
  Tile<D> gradient;
  clear(gradient);
  for (int first = first_query; first < p.frames; first += T::QUERIES) {
    stream.advance();
    const int query = first + thread_index();
    if (thread_index() < T::QUERIES) {
      const long long row =
          ((static_cast<long long>(rows.video) * p.frames + query) * p.tokens + rows.token) * p.heads + rows.head;
      const bool exists = query < p.frames;
      write(lses + thread_index(), exists ? read<float>(Global<float>{p.lse} + row) : 0.0f);
      write(deltas + thread_index(), exists ? read<float>(Global<float>{p.delta} + row) : 0.0f);
    }
    block_barrier();

    Tile<T::QUERIES> s;
    clear(s);
    multiply_transposed<D>(s, k, q_tile, T::ROW);
    const float factor = p.scale * LOG2_E;
    Interval queries[LANE_ROWS];
#pragma unroll
    for (int r = 0; r < LANE_ROWS; ++r)
      queries[r] = {p.causal ? warp_key + row_of(2 * r) - first : 0, p.frames - first};
#pragma unroll
    for (int b = 0; b < T::QUERIES / 8; ++b)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int column = 8 * b + column_of(i);
        s.v[b][i] = queries[lane_row(i)].holds(column)
                        ? exp2_approximate(s.v[b][i] * factor - read<float>(lses + column))
                        : 0.0f;
      }
    if (of_dk) {
      Tile<T::QUERIES> ds;
      clear(ds);
      multiply_transposed<D>(ds, v, do_tile, T::ROW);
#pragma unroll
      for (int b = 0; b < T::QUERIES / 8; ++b)
#pragma unroll
        for (int i = 0; i < 8; ++i) s.v[b][i] *= ds.v[b][i] - read<float>(deltas + (8 * b + column_of(i)));
      running.take(s, gradient);
    } else {
      scale_all(s, exp2f(LARGEST_EXPONENT));
    }
    store_rows(s_rows, T::S_ROW, s);
    warp_barrier();
    multiply<T::QUERIES>(gradient, InShared{s_rows, T::S_ROW}, of_dk ? q_tile : do_tile, T::ROW);
  }

  scale_all(gradient, of_dk ? p.scale * running.back() : exp2f(-LARGEST_EXPONENT));
  block_barrier();  // keys and values in shared memory, which their gradients replace, have been read
  const Shared<half> replaced = of_dk ? k.a : v.a;
  store_rows(replaced, T::ROW, gradient);
  warp_barrier();
  const View& to = of_dk ? p.dk : p.dv;
  copy_warp_rows<D>(rows.of(to, warp_key), to.frame, replaced, left - warp_row);
}

#define BACKWARD(D)                                                                                                 \
  LAUNCH(temporal_attention_long_bwd_dq_kernel_d##D, QueryGradientTile<D>::THREADS, QueryGradientTile<D>::QUERIES,  \
         QueryGradientTile<D>::SHARED)                                                                              \
  KERNEL(temporal_attention_long_bwd_dq_kernel_d##D, BackwardParameters, QueryGradientTile<D>::THREADS, 1) {        \
    query_gradient<D>(p);                                                                                           \
  }                                                                                                                 \
  LAUNCH(temporal_attention_long_bwd_dkv_kernel_d##D, KeyGradientTile<D>::THREADS, KeyGradientTile<D>::KEYS,        \
         KeyGradientTile<D>::SHARED)                                                                                \
  KERNEL(temporal_attention_long_bwd_dkv_kernel_d##D, BackwardParameters, KeyGradientTile<D>::THREADS, 1) {         \
    key_gradient<D>(p);                                                                                             \
  }

BACKWARD(32)
BACKWARD(40)
BACKWARD(64)
BACKWARD(80)
BACKWARD(128)
BACKWARD(160)
