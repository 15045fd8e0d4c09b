// frame_attention, forward: one block per (video, head, query frame, block of queries).
#include "attention.cuh"

struct ForwardParameters {
  View q, o;
  float* lse;  // [videos, frames, tokens, heads]
  Pool pools[2];
  const int* names;   // [frames, slots]
  const float* bias;  // [heads, slots] or null
  float scale;
  int frames, tokens, heads, slots;
};

// Queries in registers cost D / 2 of them: from 128 on the accumulators leave no room.
// Two warps and 16 keys from 128 on: four warps leave one block a multiprocessor with 60 KB of shared memory, 32 keys
// need 20 registers more in flight. 64 keys at 64 need 55 KB: one block on a V100, with 32 there are two.
template <int D>
struct ForwardTile {
  static constexpr bool WIDE = D >= 128;
  static constexpr int WARPS = WIDE ? 2 : 4;
  static constexpr int QUERIES = WARP_ROWS * WARPS;
  static constexpr int THREADS = 32 * WARPS;
  static constexpr int KEYS = WIDE ? 16 : D > 40 ? 32 : 64;
  static constexpr int ROW = padded(D);
  static constexpr int P_ROW = padded(KEYS);

  static constexpr int Q = 0;
  static constexpr int K = Q + 2 * QUERIES * ROW;
  static constexpr int V = K + 2 * KEYS * ROW;
  static constexpr int P = V + 2 * KEYS * ROW;
  static constexpr int SHARED = P + 2 * QUERIES * P_ROW;
};

template <int D, bool IN_REGISTERS>
struct Queries : InRegisters<D> {};

template <int D>
struct Queries<D, false> : InShared {
  DEVICE void load(Shared<half> q, int row) {
    a = q;
    stride = row;
  }
};

template <int D>
DEVICE void forward(const ForwardParameters& p) {
  using T = ForwardTile<D>;
  Work work{block_index()};
  const int block = work.next((p.tokens + T::QUERIES - 1) / T::QUERIES);
  const int frame = work.next(p.frames);
  const int head = work.next(p.heads);
  const int video = static_cast<int>(work.rest);
  const int first_query = block * T::QUERIES;
  const int warp_query = first_query + warp_index() * WARP_ROWS;

  const auto q_tile = shared_array<half>(T::Q, T::QUERIES * T::ROW);
  const auto k_tile = shared_array<half>(T::K, T::KEYS * T::ROW);
  const auto v_tile = shared_array<half>(T::V, T::KEYS * T::ROW);
  const auto warp_rows = q_tile + warp_index() * WARP_ROWS * T::ROW;
  const auto p_rows = shared_array<half>(T::P, T::QUERIES * T::P_ROW) + warp_index() * WARP_ROWS * T::P_ROW;

  KeyWalk<T::KEYS> walk(Global<const int>{p.names} + static_cast<long long>(frame) * p.slots, p.pools, p.slots, video,
                        head);
  InFlight<T::KEYS, D, T::THREADS> in_flight;
  copy_rows<T::QUERIES, D, T::THREADS>(q_tile, constant(p.q.at(video, frame, first_query, head)), p.q.token,
                                       p.tokens - first_query);
  if (!walk.done()) {
    in_flight.fetch(walk.keys(), walk.k_stride, walk.valid());
    in_flight.put(k_tile);
  }
  block_barrier();

  Queries<D, !T::WIDE> q;
  q.load(warp_rows, T::ROW);
  Tile<D> o;
  clear(o);
  float maximum[LANE_ROWS], sum[LANE_ROWS];
#pragma unroll
  for (int r = 0; r < LANE_ROWS; ++r) maximum[r] = -INFINITE, sum[r] = 0.0f;

  while (!walk.done()) {
    in_flight.fetch(walk.values(), walk.v_stride, walk.valid());
    Tile<T::KEYS> s;
    clear(s);
    multiply_transposed<D>(s, q, k_tile, T::ROW);
    in_flight.put(v_tile);

    // Logits in base 2. The scale comes after the sum, in float32: q * scale could underflow, q k^T cannot overflow.
    const float factor = p.scale * LOG2_E;
    const float bias = p.bias ? read<float>(Global<const float>{p.bias} + (head * p.slots + walk.slot)) * LOG2_E : 0.0f;
    const int valid = walk.valid();
    const bool tail = valid < T::KEYS;
    float new_maximum[LANE_ROWS], correction[LANE_ROWS];
#pragma unroll
    for (int r = 0; r < LANE_ROWS; ++r) new_maximum[r] = maximum[r];
#pragma unroll
    for (int b = 0; b < T::KEYS / 8; ++b)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float x = s.v[b][i] * factor + bias;
        if (tail && 8 * b + column_of(i) >= valid) x = -INFINITE;
        s.v[b][i] = x;
        new_maximum[lane_row(i)] = fmaxf(new_maximum[lane_row(i)], x);
      }
#pragma unroll
    for (int r = 0; r < LANE_ROWS; ++r) {
      new_maximum[r] = row_max(new_maximum[r]);
      correction[r] = exp2_approximate(maximum[r] - new_maximum[r]);
      maximum[r] = new_maximum[r];
      sum[r] *= correction[r];
    }
#pragma unroll
    for (int b = 0; b < T::KEYS / 8; ++b)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        s.v[b][i] = exp2_approximate(s.v[b][i] - maximum[lane_row(i)]);
        sum[lane_row(i)] += s.v[b][i];
      }
#pragma unroll
    for (int b = 0; b < D / 8; ++b)
#pragma unroll
      for (int i = 0; i < 8; ++i) o.v[b][i] *= correction[lane_row(i)];
    store_rows(p_rows, T::P_ROW, s);
    block_barrier();  // values and probabilities are there, keys are free

    walk.advance();
    const bool more = !walk.done();
    if (more) in_flight.fetch(walk.keys(), walk.k_stride, walk.valid());
    multiply<T::KEYS>(o, InShared{p_rows, T::P_ROW}, v_tile, T::ROW);
    if (more) in_flight.put(k_tile);
    block_barrier();  // keys are there, values and probabilities are free
  }

#pragma unroll
  for (int r = 0; r < LANE_ROWS; ++r) {
    sum[r] = row_sum(sum[r]);
    const int query = warp_query + row_of(2 * r);
    const long long row = ((static_cast<long long>(video) * p.frames + frame) * p.tokens + query) * p.heads + head;
    // Every lane of a row has the same: one of them writes.
    if (query < p.tokens && column_of(0) == 0)
      write(Global<float>{p.lse} + row, sum[r] > 0.0f ? maximum[r] * LN_2 + logf(sum[r]) : -INFINITE);
    sum[r] = sum[r] > 0.0f ? 1.0f / sum[r] : 0.0f;
  }
#pragma unroll
  for (int b = 0; b < D / 8; ++b)
#pragma unroll
    for (int i = 0; i < 8; ++i) o.v[b][i] *= sum[lane_row(i)];
  warp_barrier();  // the queries in shared memory, which o replaces, have been read
  store_rows(warp_rows, T::ROW, o);
  warp_barrier();
  copy_warp_rows<D>(p.o.at(video, frame, warp_query, head), p.o.token, warp_rows, p.tokens - warp_query);
}

#define FORWARD(D)                                                                                     \
  LAUNCH(frame_attention_fwd_kernel_d##D, ForwardTile<D>::THREADS, ForwardTile<D>::QUERIES,            \
         ForwardTile<D>::SHARED)                                                                       \
  KERNEL(frame_attention_fwd_kernel_d##D, ForwardParameters, ForwardTile<D>::THREADS, D >= 128 ? 2 : 1) { \
    forward<D>(p);                                                                                     \
  }

FORWARD(32)
FORWARD(40)
FORWARD(64)
FORWARD(80)
FORWARD(128)
FORWARD(160)
