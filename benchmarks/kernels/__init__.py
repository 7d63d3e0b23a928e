"""Device benchmarks of the kernels, one module each."""
