// frame_attention, backward: dq by blocks of queries, dk and dv by blocks of keys; no atomics.
//
// Float16 holds two products that float32 would not notice. Probabilities enter dv times 2^15, so that one key of
// thousands does not become subnormal. dS = P (dP - delta) enters dq and dk times a power of two that takes its largest
// possible value, 2 D max|dO| max|V|, to 2^15: it overflows for no input, and has 39 bits below the bound. Both factors
// are taken out again in float32.
#include "attention.cuh"

constexpr float LARGEST_EXPONENT = 15.0f;

// Power of two by which dS is multiplied; `largest` holds max|dO| and max|V|.
template <int D>
DEVICE float gradient_factor(Global<const float> largest) {
  const float bound = 2.0f * D * read<float>(largest) * read<float>(largest + 1);
  // An exponent that float32 has on both sides; nothing to scale where the bound is 0, nothing to save where it is not finite.
  const float exponent = LARGEST_EXPONENT - ceilf(log2f(bound));
  return exp2f(fminf(fmaxf(exponent, -60.0f), 60.0f));
}

struct QueryGradientParameters {
  View q, o, d_o, dq;
  const float* lse;  // [videos, frames, tokens, heads]
  float* delta;      // the same; written here, read by the kernel of dk and dv
  Pool pools[2];
  const int* names;      // [frames, slots]
  const float* bias;     // [heads, slots] or null
  const float* largest;  // max|dO|, max|V|
  float2* shares;  // [videos, frames, tokens, heads, slots, SPLIT] or null: sums of P dP and of P over a slot's keys
  float scale;
  int frames, tokens, heads, slots;
};

// Two warps share 32 queries from 64 channels on, each with half of the keys in S and half of the channels in dq: with
// whole rows a warp 22 registers were spilled at 80 (7.5), 202 at 160 (7.0), and 57 KB of shared memory at 64 left one
// block on a V100. 16 keys from 128 on fit 64 KB of a T4.
template <int D>
struct QueryGradientTile {
  static constexpr int SPLIT = D >= 64 ? 2 : 1;
  static constexpr int WARPS = 4;
  static constexpr int QUERIES = WARP_ROWS * WARPS / SPLIT;
  static constexpr int THREADS = 32 * WARPS;
  static constexpr int KEYS = D >= 128 ? 16 : 32;
  static constexpr int PART_KEYS = KEYS / SPLIT;
  static constexpr int PART = D / SPLIT;
  static constexpr int ROW = padded(D);
  static constexpr int S_ROW = padded(KEYS);

  static constexpr int Q = 0;
  static constexpr int D_O = Q + 2 * QUERIES * ROW;
  static constexpr int K = D_O + 2 * QUERIES * ROW;
  static constexpr int V = K + 2 * KEYS * ROW;
  static constexpr int D_S = V + 2 * KEYS * ROW;
  static constexpr int DELTA = D_S + 2 * QUERIES * S_ROW;
  static constexpr int SHARED = DELTA + 4 * QUERIES;
};

// A barrier of the warps that share rows.
template <int SPLIT>
DEVICE void meet_in_rows() {
  if (SPLIT > 1)
    block_barrier();
  else
    warp_barrier();
}

// sum of dO * O over a row.
template <int D>
DEVICE float row_delta(Shared<half> d_o, Global<const half> o) {
  float sum = 0.0f;
#pragma unroll 1
  for (int i = 0; i < D; i += 8) {
    const uint4 x = read<uint4>(d_o + i), y = read<uint4>(o + i);
    const unsigned a[4] = {x.x, x.y, x.z, x.w}, b[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 u = unpack(a[j]), w = unpack(b[j]);
      sum += u.x * w.x + u.y * w.y;
    }
  }
  return sum;
}

template <int D>
DEVICE void query_gradient(const QueryGradientParameters& p) {
  using T = QueryGradientTile<D>;
  const int blocks = (p.tokens + T::QUERIES - 1) / T::QUERIES;
  Work work{block_index()};
  const int block = work.next(blocks);
  const int frame = work.next(p.frames);
  const int head = work.next(p.heads);
  const int video = static_cast<int>(work.rest);
  const int first_query = block * T::QUERIES;
  const int warp_row = warp_index() / T::SPLIT * WARP_ROWS, part = warp_index() % T::SPLIT;
  const int first_column = part * T::PART_KEYS;
  const long long whole_frame = static_cast<long long>(video) * p.frames + frame;

  const auto q_tile = shared_array<half>(T::Q, T::QUERIES * T::ROW);
  const auto do_tile = shared_array<half>(T::D_O, T::QUERIES * T::ROW);
  const auto k_tile = shared_array<half>(T::K, T::KEYS * T::ROW);
  const auto v_tile = shared_array<half>(T::V, T::KEYS * T::ROW);
  const auto ds_rows = shared_array<half>(T::D_S, T::QUERIES * T::S_ROW) + warp_row * T::S_ROW;
  const auto deltas = shared_array<float>(T::DELTA, T::QUERIES);
  const InShared q{q_tile + warp_row * T::ROW, T::ROW}, d_o{do_tile + warp_row * T::ROW, T::ROW};

  KeyWalk<T::KEYS> walk(Global<const int>{p.names} + static_cast<long long>(frame) * p.slots, p.pools, p.slots, video,
                        head);
  const int left = p.tokens - first_query;
  copy_rows<T::QUERIES, D, T::THREADS>(q_tile, constant(p.q.at(video, frame, first_query, head)), p.q.token, left);
  copy_rows<T::QUERIES, D, T::THREADS>(do_tile, constant(p.d_o.at(video, frame, first_query, head)), p.d_o.token, left);
  InFlight<T::KEYS, D, T::THREADS> k_in_flight, v_in_flight;
  if (!walk.done()) {
    k_in_flight.fetch(walk.keys(), walk.k_stride, walk.valid());
    v_in_flight.fetch(walk.values(), walk.v_stride, walk.valid());
    k_in_flight.put(k_tile);
    v_in_flight.put(v_tile);
  }
  block_barrier();

  // A thread a query.
  const int query = thread_index();
  float delta_of_query = 0.0f;
  if (query < T::QUERIES && query < left) {
    delta_of_query = row_delta<D>(do_tile + query * T::ROW, constant(p.o.at(video, frame, first_query + query, head)));
    write(Global<float>{p.delta} + ((whole_frame * p.tokens + first_query + query) * p.heads + head), delta_of_query);
  }
  if (query < T::QUERIES) write(deltas + query, delta_of_query);
  block_barrier();
  float delta[LANE_ROWS], lse[LANE_ROWS];
#pragma unroll
  for (int r = 0; r < LANE_ROWS; ++r) {
    const int row = warp_row + row_of(2 * r);
    delta[r] = read<float>(deltas + row);
    // Rows beyond the last have probabilities of 0.
    lse[r] = INFINITE;
    if (row < left)
      lse[r] = read<float>(Global<const float>{p.lse} + ((whole_frame * p.tokens + first_query + row) * p.heads + head)) *
               LOG2_E;
  }

  const float gradient = gradient_factor<D>(Global<const float>{p.largest});
  Tile<T::PART> dq;
  clear(dq);
  // The bias' gradient sums many rows: it takes sum(P dP) for delta, which has not been through an output in float16.
  float of_slot[LANE_ROWS] = {}, weight[LANE_ROWS] = {};
  while (!walk.done()) {
    const int slot = walk.slot, valid = walk.valid();
    walk.advance();
    const bool more = !walk.done();
    if (more) {
      k_in_flight.fetch(walk.keys(), walk.k_stride, walk.valid());
      v_in_flight.fetch(walk.values(), walk.v_stride, walk.valid());
    }
    Tile<T::PART_KEYS> s, ds;
    clear(s);
    clear(ds);
    multiply_transposed<D>(s, q, k_tile + first_column * T::ROW, T::ROW);
    multiply_transposed<D>(ds, d_o, v_tile + first_column * T::ROW, T::ROW);
    const float factor = p.scale * LOG2_E;
    const float bias = p.bias ? read<float>(Global<const float>{p.bias} + (head * p.slots + slot)) * LOG2_E : 0.0f;
    const bool tail = valid < T::KEYS;
#pragma unroll
    for (int b = 0; b < T::PART_KEYS / 8; ++b)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int r = lane_row(i);
        float probability = exp2_approximate(s.v[b][i] * factor + bias - lse[r]);
        if (tail && first_column + 8 * b + column_of(i) >= valid) probability = 0.0f;
        of_slot[r] += probability * ds.v[b][i];
        weight[r] += probability;
        ds.v[b][i] = probability * (ds.v[b][i] - delta[r]) * gradient;
      }
    if (p.shares && (!more || walk.slot != slot)) {
#pragma unroll
      for (int r = 0; r < LANE_ROWS; ++r) {
        const int row = warp_row + row_of(2 * r);
        const float2 sums = {row_sum(of_slot[r]), row_sum(weight[r])};
        const long long place = ((whole_frame * p.tokens + first_query + row) * p.heads + head) * p.slots + slot;
        // Every lane of a row has the same: one of them writes.
        if (row < left && column_of(0) == 0) write(Global<float2>{p.shares} + (place * T::SPLIT + part), sums);
        of_slot[r] = weight[r] = 0.0f;
      }
    }
    store_rows(ds_rows + first_column, T::S_ROW, ds);
    meet_in_rows<T::SPLIT>();
    multiply<T::KEYS>(dq, InShared{ds_rows, T::S_ROW}, k_tile + part * T::PART, T::ROW);
    block_barrier();  // keys and values are free
    if (more) {
      k_in_flight.put(k_tile);
      v_in_flight.put(v_tile);
    }
    block_barrier();
  }

  const float back = p.scale / gradient;
#pragma unroll
  for (int b = 0; b < T::PART / 8; ++b)
#pragma unroll
    for (int i = 0; i < 8; ++i) dq.v[b][i] *= back;
  meet_in_rows<T::SPLIT>();  // the queries in shared memory, which dq replaces, have been read
  store_rows(q.a + part * T::PART, T::ROW, dq);
  meet_in_rows<T::SPLIT>();
  if (part == 0)
    copy_warp_rows<D>(p.dq.at(video, frame, first_query + warp_row, head), p.dq.token, q.a, left - warp_row);
}

struct KeyGradientParameters {
  View q, d_o, dk, dv;
  const float *lse, *delta;  // [videos, frames, tokens, heads]
  Pool pool;
  const int* starts;  // [pool frames + 1], those of this pool
  const int* naming;  // [entries, 2]: (query frame, slot)
  const float* bias;
  const float* largest;
  float *dk_parts, *dv_parts;  // [slices, videos, pool frames, keys, heads, D], or null where there is one slice
  float scale;
  int videos, frames, tokens, heads, slots, slices;
};

// Two warps share 32 keys from 64 channels on, each with half of the queries in S and half of the channels in dk and dv:
// the accumulators of 32 whole rows, 2 D registers, would leave no room. 16 queries from 128 on fit 64 KB of a T4.
template <int D>
struct KeyGradientTile {
  static constexpr int SPLIT = D >= 64 ? 2 : 1;
  static constexpr int WARPS = 4;
  static constexpr int KEYS = WARP_ROWS * WARPS / SPLIT;
  static constexpr int THREADS = 32 * WARPS;
  static constexpr int QUERIES = D >= 128 ? 16 : 32;
  static constexpr int PART_QUERIES = QUERIES / SPLIT;
  static constexpr int PART = D / SPLIT;
  static constexpr int ROW = padded(D);
  static constexpr int S_ROW = padded(QUERIES);

  static constexpr int K = 0;
  static constexpr int V = K + 2 * KEYS * ROW;
  static constexpr int Q = V + 2 * KEYS * ROW;
  static constexpr int D_O = Q + 2 * QUERIES * ROW;
  static constexpr int P = D_O + 2 * QUERIES * ROW;
  static constexpr int D_S = P + 2 * KEYS * S_ROW;
  static constexpr int LSE = D_S + 2 * KEYS * S_ROW;
  static constexpr int DELTA = LSE + 4 * QUERIES;
  static constexpr int SHARED = DELTA + 4 * QUERIES;
};

// The blocks of queries that attend to one pool frame, from the first to the last of a slice.
template <int D>
struct QueryWalk {
  static constexpr int QUERIES = KeyGradientTile<D>::QUERIES;
  int entry, block, left, blocks;

  DEVICE QueryWalk(int first_entry, int entries, int blocks, int slice, int slices) : blocks(blocks) {
    const long long all = static_cast<long long>(entries) * blocks;
    const long long first = all * slice / slices, last = all * (slice + 1) / slices;
    entry = first_entry + static_cast<int>(first / blocks);
    block = static_cast<int>(first % blocks);
    left = static_cast<int>(last - first);
  }

  DEVICE bool done() const { return left == 0; }
  DEVICE void advance() {
    --left;
    if (++block == blocks) block = 0, ++entry;
  }
  DEVICE int first_query() const { return block * QUERIES; }
};

// A warp writes a tile in float32, the rows before `valid`.
template <int N>
DEVICE void write_parts(Global<float> to, long long stride, const Tile<N>& c, int valid) {
#pragma unroll
  for (int b = 0; b < N / 8; ++b)
#pragma unroll
    for (int i = 0; i < 8; i += 2)
      if (row_of(i) < valid)
        write(to + (row_of(i) * stride + 8 * b + column_of(i)), float2{c.v[b][i], c.v[b][i + 1]});
}

template <int D>
DEVICE void key_gradient(const KeyGradientParameters& p) {
  using T = KeyGradientTile<D>;
  Work work{block_index()};
  const int key_blocks = (p.pool.tokens + T::KEYS - 1) / T::KEYS;
  const int first_key = work.next(key_blocks) * T::KEYS;
  const int slice = work.next(p.slices);
  const int frame = work.next(p.pool.frames);
  const int head = work.next(p.heads);
  const int video = static_cast<int>(work.rest);
  const int warp_row = warp_index() / T::SPLIT * WARP_ROWS, part = warp_index() % T::SPLIT;

  const auto k_tile = shared_array<half>(T::K, T::KEYS * T::ROW);
  const auto v_tile = shared_array<half>(T::V, T::KEYS * T::ROW);
  const auto q_tile = shared_array<half>(T::Q, T::QUERIES * T::ROW);
  const auto do_tile = shared_array<half>(T::D_O, T::QUERIES * T::ROW);
  const auto p_rows = shared_array<half>(T::P, T::KEYS * T::S_ROW) + warp_row * T::S_ROW;
  const auto ds_rows = shared_array<half>(T::D_S, T::KEYS * T::S_ROW) + warp_row * T::S_ROW;
  const auto lses = shared_array<float>(T::LSE, T::QUERIES);
  const auto deltas = shared_array<float>(T::DELTA, T::QUERIES);
  const InShared k{k_tile + warp_row * T::ROW, T::ROW}, v{v_tile + warp_row * T::ROW, T::ROW};

  const int left = p.pool.tokens - first_key;
  copy_rows<T::KEYS, D, T::THREADS>(k_tile, constant(p.pool.k.at(video, frame, first_key, head)), p.pool.k.token, left);
  copy_rows<T::KEYS, D, T::THREADS>(v_tile, constant(p.pool.v.at(video, frame, first_key, head)), p.pool.v.token, left);
  const int first_entry = read<int>(Global<const int>{p.starts} + frame);
  const int entries = read<int>(Global<const int>{p.starts} + (frame + 1)) - first_entry;
  const float gradient = gradient_factor<D>(Global<const float>{p.largest});

  InFlight<T::QUERIES, D, T::THREADS> in_flight;
  Tile<T::PART> dk, dv;
  clear(dk);
  clear(dv);
  for (QueryWalk<D> walk(first_entry, entries, (p.tokens + T::QUERIES - 1) / T::QUERIES, slice, p.slices); !walk.done();
       walk.advance()) {
    const int query_frame = read<int>(Global<const int>{p.naming} + 2 * walk.entry);
    const int slot = read<int>(Global<const int>{p.naming} + (2 * walk.entry + 1));
    const int first_query = walk.first_query(), queries = p.tokens - first_query;
    in_flight.fetch(constant(p.q.at(video, query_frame, first_query, head)), p.q.token, queries);
    const int query = thread_index();
    float lse = INFINITE, delta = 0.0f;  // of queries beyond the last: probabilities of 0
    if (query < T::QUERIES && query < queries) {
      const long long row =
          ((static_cast<long long>(video) * p.frames + query_frame) * p.tokens + first_query + query) * p.heads + head;
      lse = read<float>(Global<const float>{p.lse} + row) * LOG2_E;
      delta = read<float>(Global<const float>{p.delta} + row);
    }
    block_barrier();  // the former queries are free
    in_flight.put(q_tile);
    in_flight.fetch(constant(p.d_o.at(video, query_frame, first_query, head)), p.d_o.token, queries);
    in_flight.put(do_tile);
    if (query < T::QUERIES) {
      write(lses + query, lse);
      write(deltas + query, delta);
    }
    block_barrier();

    Tile<T::PART_QUERIES> s, ds;
    clear(s);
    clear(ds);
    const int first_column = part * T::PART_QUERIES;
    multiply_transposed<D>(s, k, q_tile + first_column * T::ROW, T::ROW);
    multiply_transposed<D>(ds, v, do_tile + first_column * T::ROW, T::ROW);
    const float factor = p.scale * LOG2_E;
    const float bias = p.bias ? read<float>(Global<const float>{p.bias} + (head * p.slots + slot)) * LOG2_E : 0.0f;
    const float gradient_of_scaled = gradient * exp2f(-LARGEST_EXPONENT);
#pragma unroll
    for (int b = 0; b < T::PART_QUERIES / 8; ++b)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int column = first_column + 8 * b + column_of(i);
        s.v[b][i] = exp2_approximate(s.v[b][i] * factor + bias - read<float>(lses + column) + LARGEST_EXPONENT);
        ds.v[b][i] = s.v[b][i] * gradient_of_scaled * (ds.v[b][i] - read<float>(deltas + column));
      }
    store_rows(p_rows + first_column, T::S_ROW, s);
    store_rows(ds_rows + first_column, T::S_ROW, ds);
    meet_in_rows<T::SPLIT>();
    multiply<T::QUERIES>(dv, InShared{p_rows, T::S_ROW}, do_tile + part * T::PART, T::ROW);
    multiply<T::QUERIES>(dk, InShared{ds_rows, T::S_ROW}, q_tile + part * T::PART, T::ROW);
  }

  const float of_dv = exp2f(-LARGEST_EXPONENT), of_dk = p.scale / gradient;
#pragma unroll
  for (int b = 0; b < T::PART / 8; ++b)
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      dv.v[b][i] *= of_dv;
      dk.v[b][i] *= of_dk;
    }
  const int warp_key = first_key + warp_row, valid = p.pool.tokens - warp_key;
  if (p.slices > 1) {
    const long long token = static_cast<long long>(p.heads) * D;
    const long long row = ((static_cast<long long>(slice) * p.videos + video) * p.pool.frames + frame) * p.pool.tokens;
    const long long place = (row + warp_key) * token + head * D + part * T::PART;
    write_parts(Global<float>{p.dk_parts} + place, token, dk, valid);
    write_parts(Global<float>{p.dv_parts} + place, token, dv, valid);
    return;
  }
  block_barrier();  // keys and values in shared memory, which their gradients replace, have been read
  store_rows(k.a + part * T::PART, T::ROW, dk);
  store_rows(v.a + part * T::PART, T::ROW, dv);
  block_barrier();
  if (part == 0)
    copy_warp_rows<D>(p.dk.at(video, frame, warp_key, head), p.dk.token, k.a, valid);
  if (part == T::SPLIT - 1)
    copy_warp_rows<D>(p.dv.at(video, frame, warp_key, head), p.dv.token, v.a, valid);
}

#define BACKWARD(D)                                                                                             \
  LAUNCH(frame_attention_bwd_dq_kernel_d##D, QueryGradientTile<D>::THREADS, QueryGradientTile<D>::QUERIES,      \
         QueryGradientTile<D>::SHARED)                                                                          \
  KERNEL(frame_attention_bwd_dq_kernel_d##D, QueryGradientParameters, QueryGradientTile<D>::THREADS, 1) {       \
    query_gradient<D>(p);                                                                                       \
  }                                                                                                             \
  LAUNCH(frame_attention_bwd_dkv_kernel_d##D, KeyGradientTile<D>::THREADS, KeyGradientTile<D>::KEYS,            \
         KeyGradientTile<D>::SHARED)                                                                            \
  KERNEL(frame_attention_bwd_dkv_kernel_d##D, KeyGradientParameters, KeyGradientTile<D>::THREADS, 1) {          \
    key_gradient<D>(p);                                                                                         \
  }

BACKWARD(32)
BACKWARD(40)
BACKWARD(64)
BACKWARD(80)
BACKWARD(128)
BACKWARD(160)
