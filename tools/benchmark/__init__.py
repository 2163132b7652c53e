"""Measures training against its matrix products, the memory's bandwidth and PyTorch."""
