"""Benchmarks of training against its matrix products, the memory bandwidth and PyTorch."""
