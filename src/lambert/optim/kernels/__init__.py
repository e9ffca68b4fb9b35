"""Implementations of the step: plain tensor operations anywhere, numba loops on the CPU, Triton on a GPU.

Each has two sweeps, `update_moments` (moments, and the sums of squares for the norms) and `apply_update` (weights), so
that norms can be all-reduced in between, and `fused_step` for layers that are not sharded.
"""
