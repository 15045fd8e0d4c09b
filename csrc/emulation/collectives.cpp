// Shuffles, matrix products and matrix loads, from the fragment layouts of the PTX ISA and nothing else: they check
// the lane maps of csrc/tile.cuh, so they must not share them.
#include "collectives.h"

namespace emulation {
namespace {

float half_of(unsigned pair, int i) {
  const float2 both = unpack(pair);
  return i ? both.y : both.x;
}

// "Matrix Fragments for mma.m8n8k4 with .f16 floating point type": quad-pair q is lanes 4q to 4q + 3 and
// 4q + 16 to 4q + 19.
void m8n8k4(void* const (&brought)[32], bool b_by_rows) {
  for (int q = 0; q < 4; ++q) {
    float a[8][4], b[4][8];
    int lanes[8];
    for (int t = 0; t < 8; ++t) lanes[t] = 4 * q + t % 4 + (t < 4 ? 0 : 16);
    for (const int lane : lanes) {
      const Product& mine = *static_cast<Product*>(brought[lane]);
      for (int i = 0; i < 4; ++i) {
        a[lane % 4 + (lane < 16 ? 0 : 4)][i] = half_of(mine.a[i / 2], i % 2);
        const float value = half_of(mine.b[i / 2], i % 2);
        if (b_by_rows)
          b[lane % 4][i + (lane < 16 ? 0 : 4)] = value;
        else
          b[i][lane % 4 + (lane < 16 ? 0 : 4)] = value;
      }
    }
    for (const int lane : lanes) {
      Product& mine = *static_cast<Product*>(brought[lane]);
      for (int i = 0; i < 8; ++i) {
        const int row = (lane & 1) + (i & 2) + (lane < 16 ? 0 : 4);
        const int column = (i & 4) + (lane & 2) + (i & 1);
        double sum = mine.c[i];
        for (int k = 0; k < 4; ++k) sum += static_cast<double>(a[row][k]) * b[k][column];
        mine.c[i] = static_cast<float>(sum);
      }
    }
  }
}

// "Matrix Fragments for mma.m16n8k8", .f16.
void m16n8k8(void* const (&brought)[32]) {
  float a[16][8], b[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Product& mine = *static_cast<Product*>(brought[lane]);
    const int group = lane >> 2, in_group = lane % 4;
    for (int i = 0; i < 4; ++i) a[group + (i < 2 ? 0 : 8)][in_group * 2 + (i & 1)] = half_of(mine.a[i / 2], i & 1);
    for (int i = 0; i < 2; ++i) b[in_group * 2 + i][group] = half_of(mine.b[0], i);
  }
  for (int lane = 0; lane < 32; ++lane) {
    Product& mine = *static_cast<Product*>(brought[lane]);
    const int group = lane >> 2, in_group = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = group + (i < 2 ? 0 : 8), column = in_group * 2 + (i & 1);
      double sum = mine.c[i];
      for (int k = 0; k < 8; ++k) sum += static_cast<double>(a[row][k]) * b[k][column];
      mine.c[i] = static_cast<float>(sum);
    }
  }
}

void shuffle(void* const (&brought)[32]) {
  for (int lane = 0; lane < 32; ++lane) {
    Shuffle& mine = *static_cast<Shuffle*>(brought[lane]);
    mine.received = static_cast<Shuffle*>(brought[lane ^ mine.mask])->value;
  }
}

struct MatrixRow {
  unsigned halves[4];  // the row that the lane's address names
  unsigned* r;
  int count;
  bool transposed;
};

// "ldmatrix": lane i holds columns 2 * (i % 4) and the next of row i / 4 of every matrix.
void matrices(void* const (&brought)[32]) {
  for (int lane = 0; lane < 32; ++lane) {
    const MatrixRow& mine = *static_cast<MatrixRow*>(brought[lane]);
    for (int m = 0; m < mine.count; ++m) {
      float pair[2];
      for (int i = 0; i < 2; ++i) {
        const int row = mine.transposed ? 2 * (lane % 4) + i : lane / 4;
        const int column = mine.transposed ? lane / 4 : 2 * (lane % 4) + i;
        pair[i] = half_of(static_cast<MatrixRow*>(brought[8 * m + row])->halves[column / 2], column % 2);
      }
      mine.r[m] = pack(pair[0], pair[1]);
    }
  }
}

}  // namespace

void perform(Meeting meeting, void* const (&brought)[32]) {
  switch (meeting) {
    case Meeting::shuffle: return shuffle(brought);
    case Meeting::m8n8k4_row_col: return m8n8k4(brought, false);
    case Meeting::m8n8k4_row_row: return m8n8k4(brought, true);
    case Meeting::m16n8k8: return m16n8k8(brought);
    case Meeting::matrices: return matrices(brought);
    default: fail("no such collective");
  }
}

#if TENSOR_CORE == 75

void load_matrices(unsigned* r, int count, bool transposed, Shared<__half> row) {
  MatrixRow mine{{}, r, count, transposed};
  if (lane_index() < 8 * count) {
    const uint4 halves = read<uint4>(row);
    std::memcpy(mine.halves, &halves, sizeof halves);
  }
  meet(Meeting::matrices, &mine);
}

#endif

}  // namespace emulation
