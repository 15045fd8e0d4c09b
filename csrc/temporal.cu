// temporal_attention of up to 32 frames, forward and backward: a block is one warp, its rows are the frames of as many
// tokens as fit, one below the other. One product gives the logits of all; those between two tokens are masked.
#include "temporal.cuh"

// The rows of a warp.
struct Sequences {
  int frames, held;  // frames of a token; tokens that a warp holds
  int reciprocal;
  int video, head, first_token;
  Shared<int> places;  // by row: 32 * token + frame, or -1 where there is none

  DEVICE Sequences(int frames, int tokens, int heads, Shared<int> places)
      : frames(frames), held(WARP_ROWS / frames), reciprocal(65536 / frames + 1), places(places) {
    Work work{block_index()};
    // Heads lie next to each other in memory: blocks that read the same sectors run at the same time.
    head = work.next(heads);
    first_token = work.next((tokens + held - 1) / held) * held;
    video = static_cast<int>(work.rest);
    const int row = lane_index(), token = token_of(row);
    const bool exists = token < held && first_token + token < tokens;
    write(places + row, exists ? WARP_ROWS * token + row - token * frames : -1);
    warp_barrier();
  }

  // row / frames, for rows of a warp.
  DEVICE int token_of(int row) const { return row * reciprocal >> 16; }

  // Keys that a row attends to. Rows that hold no frame have keys of their own kind, all zero.
  DEVICE Interval keys_of(int row, bool causal) const {
    const int first = token_of(row) * frames;
    return {first, causal ? row + 1 : first + frames};
  }

  DEVICE void keys_of_rows(Interval (&keys)[LANE_ROWS], bool causal) const {
#pragma unroll
    for (int r = 0; r < LANE_ROWS; ++r) keys[r] = keys_of(row_of(2 * r), causal);
  }
};

// 8 channels of a row of a warp. Places come from shared memory: computed, they stay in registers from the first tensor
// to the last, 43 of them at 160 channels on 7.0.
template <int D>
struct Chunk {
  int row, column;
  bool exists;
  long long offset;

  DEVICE Chunk(int number, const View& t, const Sequences& rows)
      : row(number / (D / 8)), column(number % (D / 8) * 8) {
    const int place = read<int>(rows.places + row);
    exists = place >= 0;
    offset = place % WARP_ROWS * t.frame + place / WARP_ROWS * t.token + column;
  }
};

// The rows of a warp on their way from global to shared memory; those that hold no frame are zero.
template <int D>
struct SequencesInFlight {
  uint4 r[D / 8];

  DEVICE void fetch(const View& t, const Sequences& rows) {
    const Global<const half> from = constant(t.at(rows.video, 0, rows.first_token, rows.head));
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
      const Chunk<D> chunk(lane_index() + 32 * i, t, rows);
      r[i] = make_uint4(0, 0, 0, 0);
      if (chunk.exists) r[i] = read<uint4>(from + chunk.offset);
    }
  }

  DEVICE void put(Shared<half> to) const {
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
      const int number = lane_index() + 32 * i;
      write(to + (number / (D / 8) * padded(D) + number % (D / 8) * 8), r[i]);
    }
  }
};

// From 128 channels on registers hold neither two tensors in flight nor all channels of a product beside dS. Below, the
// backward has q and k in flight while it multiplies: fetched after that they spill 92 bytes at 80 on 7.0.
template <int D>
constexpr bool WIDE = D >= 128;

template <int D>
DEVICE void load_two(const Sequences& rows, const View& a, Shared<half> a_tile, const View& b, Shared<half> b_tile) {
  SequencesInFlight<D> a_in_flight, b_in_flight;
  a_in_flight.fetch(a, rows);
  if (WIDE<D>) a_in_flight.put(a_tile);
  b_in_flight.fetch(b, rows);
  if (!WIDE<D>) a_in_flight.put(a_tile);
  b_in_flight.put(b_tile);
}

// b becomes a b with its rows multiplied. Wide rows go in two parts.
template <int D>
DEVICE void replace_by_product(const InShared& a, Shared<half> b, const float (&by)[LANE_ROWS]) {
  constexpr int PART = WIDE<D> ? D / 2 : D;
#pragma unroll 1
  for (int first = 0; first < D; first += PART) {
    Tile<PART> c;
    clear(c);
    multiply<WARP_ROWS>(c, a, b + first, padded(D));
    scale_rows(c, by);
    warp_barrier();  // a and this part of b have been read
    store_rows(b + first, padded(D), c);
  }
}

template <int D>
DEVICE void write_sequences(const View& t, const Sequences& rows, Shared<half> from) {
  const Global<half> to = t.at(rows.video, 0, rows.first_token, rows.head);
#pragma unroll 1
  for (int i = 0; i < D / 8; ++i) {
    const Chunk<D> chunk(lane_index() + 32 * i, t, rows);
    if (chunk.exists) write(to + chunk.offset, read<uint4>(from + (chunk.row * padded(D) + chunk.column)));
  }
}

// Values take the place of keys, the output theirs, probabilities that of queries: 21 KB at 160 channels, with which
// three blocks fit a T4. With a place for each of q, k and v there would be two.
template <int D>
struct ForwardTile {
  static constexpr int ROW = padded(D);
  static constexpr int P_ROW = padded(WARP_ROWS);
  static constexpr int Q = 0;
  static constexpr int K = Q + 2 * WARP_ROWS * ROW;
  static constexpr int PLACES = K + 2 * WARP_ROWS * ROW;
  static constexpr int SHARED = PLACES + 4 * WARP_ROWS;
};

template <int D>
DEVICE void forward(const ForwardParameters& p) {
  using T = ForwardTile<D>;
  const Sequences rows(p.frames, p.tokens, p.heads, shared_array<int>(T::PLACES, WARP_ROWS));
  const auto q_tile = shared_array<half>(T::Q, WARP_ROWS * T::ROW);
  const auto k_tile = shared_array<half>(T::K, WARP_ROWS * T::ROW);

  load_two<D>(rows, p.q, q_tile, p.k, k_tile);
  SequencesInFlight<D> v;
  v.fetch(p.v, rows);
  warp_barrier();
  Tile<WARP_ROWS> s;
  clear(s);
  multiply_transposed<D>(s, InShared{q_tile, T::ROW}, k_tile, T::ROW);
  warp_barrier();  // queries and keys have been read
  v.put(k_tile);

  Interval keys[LANE_ROWS];
  rows.keys_of_rows(keys, p.causal);
  Softmax softmax;
  float unused[LANE_ROWS];  // there is no former tile to correct
  softmax.take(s, p.scale, keys, unused);
  store_rows(q_tile, T::P_ROW, s);
  warp_barrier();
#pragma unroll
  for (int r = 0; r < LANE_ROWS; ++r) softmax.sum[r] = 1.0f / row_sum(softmax.sum[r]);
  replace_by_product<D>(InShared{q_tile, T::P_ROW}, k_tile, softmax.sum);
  warp_barrier();
  write_sequences<D>(p.o, rows, k_tile);
}

// Keys take the place of values, gradients that of what they were computed from: 35 KB at 160 channels.
template <int D>
struct BackwardTile {
  static constexpr int ROW = padded(D);
  static constexpr int S_ROW = padded(WARP_ROWS);
  static constexpr int Q = 0;
  static constexpr int D_O = Q + 2 * WARP_ROWS * ROW;
  static constexpr int K = D_O + 2 * WARP_ROWS * ROW;
  static constexpr int S = K + 2 * WARP_ROWS * ROW;
  static constexpr int PLACES = S + 2 * WARP_ROWS * S_ROW;
  static constexpr int SHARED = PLACES + 4 * WARP_ROWS;
};

template <int D>
DEVICE void backward(const BackwardParameters& p) {
  using T = BackwardTile<D>;
  const Sequences rows(p.frames, p.tokens, p.heads, shared_array<int>(T::PLACES, WARP_ROWS));
  const auto q_tile = shared_array<half>(T::Q, WARP_ROWS * T::ROW);
  const auto do_tile = shared_array<half>(T::D_O, WARP_ROWS * T::ROW);
  const auto k_tile = shared_array<half>(T::K, WARP_ROWS * T::ROW);
  const auto s_tile = shared_array<half>(T::S, WARP_ROWS * T::S_ROW);
  const InShared of_s{s_tile, T::S_ROW};

  load_two<D>(rows, p.d_o, do_tile, p.v, k_tile);
  SequencesInFlight<D> q, k;
  if (!WIDE<D>) q.fetch(p.q, rows), k.fetch(p.k, rows);
  warp_barrier();
  Tile<WARP_ROWS> s, ds;
  clear(ds);
  multiply_transposed<D>(ds, InShared{do_tile, T::ROW}, k_tile, T::ROW);
  warp_barrier();  // values have been read
  if (WIDE<D>) q.fetch(p.q, rows);
  q.put(q_tile);
  if (WIDE<D>) k.fetch(p.k, rows);
  k.put(k_tile);
  warp_barrier();
  clear(s);
  multiply_transposed<D>(s, InShared{q_tile, T::ROW}, k_tile, T::ROW);

  Interval keys[LANE_ROWS];
  rows.keys_of_rows(keys, p.causal);
  Softmax softmax;
  float unused[LANE_ROWS], delta[LANE_ROWS] = {};
  softmax.take(s, p.scale, keys, unused);
#pragma unroll
  for (int r = 0; r < LANE_ROWS; ++r) softmax.sum[r] = 1.0f / row_sum(softmax.sum[r]);
  scale_rows(s, softmax.sum);
  add_products_by_row(delta, s, ds);
#pragma unroll
  for (int r = 0; r < LANE_ROWS; ++r) delta[r] = row_sum(delta[r]);
#pragma unroll
  for (int b = 0; b < WARP_ROWS / 8; ++b)
#pragma unroll
    for (int i = 0; i < 8; ++i) ds.v[b][i] = s.v[b][i] * (ds.v[b][i] - delta[lane_row(i)]);
  const float exponent = largest_exponent(ds);
  scale_all(ds, exp2f(exponent));
  scale_all(s, exp2f(LARGEST_EXPONENT));
  float of_dv[LANE_ROWS], of_ds[LANE_ROWS];
#pragma unroll
  for (int r = 0; r < LANE_ROWS; ++r) of_dv[r] = exp2f(-LARGEST_EXPONENT), of_ds[r] = p.scale * exp2f(-exponent);

  store_columns(s_tile, T::S_ROW, s);
  warp_barrier();
  replace_by_product<D>(of_s, do_tile, of_dv);
  store_columns(s_tile, T::S_ROW, ds);
  warp_barrier();
  write_sequences<D>(p.dv, rows, do_tile);
  replace_by_product<D>(of_s, q_tile, of_ds);
  store_rows(s_tile, T::S_ROW, ds);
  warp_barrier();
  write_sequences<D>(p.dk, rows, q_tile);
  replace_by_product<D>(of_s, k_tile, of_ds);
  warp_barrier();
  write_sequences<D>(p.dq, rows, k_tile);
}

#define SHORT(D)                                                                         \
  LAUNCH(temporal_attention_fwd_kernel_d##D, 32, WARP_ROWS, ForwardTile<D>::SHARED)      \
  KERNEL(temporal_attention_fwd_kernel_d##D, ForwardParameters, 32, 1) { forward<D>(p); } \
  LAUNCH(temporal_attention_bwd_kernel_d##D, 32, WARP_ROWS, BackwardTile<D>::SHARED)     \
  KERNEL(temporal_attention_bwd_kernel_d##D, BackwardParameters, 32, 1) { backward<D>(p); }

SHORT(32)
SHORT(40)
SHORT(64)
SHORT(80)
SHORT(128)
SHORT(160)
