// What the kernels of frame_attention share: parameters, and the walk over the keys of a query frame.
#pragma once

#include "tensor.cuh"
#include "tile.cuh"

struct Pool {
  View k, v;
  int frames, tokens;
};

// The keys that one query frame attends to: slot by slot, KEYS at a time.
template <int KEYS>
struct KeyWalk {
  Global<const int> names;
  const Pool* pools;
  int slots, video, head;
  int slot = -1, first = 0, tokens = 0;
  Global<half> k{nullptr}, v{nullptr};
  long long k_stride = 0, v_stride = 0;

  DEVICE KeyWalk(Global<const int> names, const Pool* pools, int slots, int video, int head)
      : names(names), pools(pools), slots(slots), video(video), head(head) {
    enter_next_slot();
  }

  DEVICE bool done() const { return slot >= slots; }
  DEVICE int valid() const { return tokens - first; }
  DEVICE void advance() {
    first += KEYS;
    if (first >= tokens) enter_next_slot();
  }
  DEVICE Global<const half> keys() const { return constant(k + first * k_stride); }
  DEVICE Global<const half> values() const { return constant(v + first * v_stride); }

 private:
  DEVICE void enter_next_slot() {
    first = 0;
    int name = -1;
    while (++slot < slots && name < 0) {
      name = read<int>(names + slot);
      if (name >= 0) break;
    }
    if (done()) return;
    const bool second = name >= pools[0].frames;
    if (second) name -= pools[0].frames;
    // Field by field: an index that the compiler does not know would put the parameters into local memory.
    tokens = second ? pools[1].tokens : pools[0].tokens;
    k_stride = second ? pools[1].k.token : pools[0].k.token;
    v_stride = second ? pools[1].v.token : pools[0].v.token;
    k = second ? pools[1].k.at(video, name, 0, head) : pools[0].k.at(video, name, 0, head);
    v = second ? pools[1].v.at(video, name, 0, head) : pools[0].v.at(video, name, 0, head);
  }
};
