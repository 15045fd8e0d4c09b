// Kernels that each do one thing that a GPU would not forgive, or would not notice.
#include <machine.cuh>

struct Parameters {
  float* x;  // 64 of them
  int thread;  // the one that errs
};

#define WRONG(name)      \
  LAUNCH(name, 64, 1, 512) \
  KERNEL(name, Parameters, 64, 1)

DEVICE Global<float> global(const Parameters& p) { return {p.x}; }
DEVICE bool errs(const Parameters& p) { return thread_index() == p.thread; }

WRONG(nothing) {
  const auto a = shared_array<float>(0, 64);
  write(a + thread_index(), read<float>(global(p) + thread_index()));
  block_barrier();
  write(global(p) + thread_index(), read<float>(a + (63 - thread_index())));
}

WRONG(shared_out_of_bounds) {
  const auto a = shared_array<float>(0, 64);
  write(a + (thread_index() + errs(p) * (64 - p.thread)), 1.0f);
}

WRONG(shared_into_the_next_array) {
  const auto a = shared_array<float>(256, 64);
  write(a + (thread_index() - errs(p) * (1 + p.thread)), 1.0f);
}

WRONG(global_out_of_bounds) { write(global(p) + (thread_index() + errs(p) * 64), 1.0f); }

WRONG(misaligned) { read<uint2>(global(p) + errs(p)); }

WRONG(uninitialised) {
  const auto a = shared_array<float>(0, 128);
  write(a + thread_index(), 1.0f);
  block_barrier();
  write(global(p) + thread_index(), read<float>(a + (thread_index() + errs(p) * (64 - p.thread))));
}

WRONG(divergent_block) {
  if (!errs(p)) block_barrier();
}

WRONG(divergent_warp) {
  if (errs(p))
    warp_barrier();
  else
    shuffle_xor(1.0f, 1);
}

WRONG(read_before_barrier) {
  const auto a = shared_array<float>(0, 64);
  write(a + thread_index(), 1.0f);
  warp_barrier();
  write(global(p) + thread_index(), read<float>(a + (errs(p) ? (thread_index() + 32) % 64 : thread_index())));
}

WRONG(written_before_barrier) {
  const auto a = shared_array<float>(0, 64);
  write(a + thread_index(), 1.0f);
  block_barrier();
  const float x = read<float>(a + (63 - thread_index()));
  if (errs(p)) write(a + thread_index(), x);
}

WRONG(lane_before_warp_barrier) {
  const auto a = shared_array<float>(0, 64);
  write(a + thread_index(), 1.0f);
  if (errs(p)) write(global(p), read<float>(a + (thread_index() ^ 1)));
}

// Of two blocks, the second errs: each has 32 of the numbers.
DEVICE Global<float> of_block(const Parameters& p, long long block) { return global(p) + 32 * block; }

WRONG(written_by_two_blocks) {
  if (thread_index() < 32) write(of_block(p, block_index()) + (thread_index() - 32 * block_index() * errs(p)), 1.0f);
}

WRONG(read_from_another_block) {
  if (thread_index() >= 32) return;
  write(of_block(p, block_index()) + thread_index(), 1.0f);
  read<float>(of_block(p, errs(p) ? 0 : block_index()) + thread_index());
}

WRONG(written_where_another_block_reads) {
  if (thread_index() >= 32) return;
  if (block_index() == 0) read<float>(global(p) + thread_index());
  if (block_index() == 1) write(global(p) + (errs(p) ? 0 : 32 + thread_index()), 1.0f);
}
