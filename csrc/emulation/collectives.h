// What a warp does together.
#pragma once

#include <machine.cuh>

namespace emulation {

// `brought[lane]` is what each lane gave to `meet`.
void perform(Meeting meeting, void* const (&brought)[32]);

}  // namespace emulation
