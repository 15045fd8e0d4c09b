"""The operations by the CUDA kernels of csrc/, for compute capability 7.0 and 7.5."""
