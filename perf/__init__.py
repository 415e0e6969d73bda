"""Benchmarks: how fast editing and training are, and how far from what the hardware allows."""
