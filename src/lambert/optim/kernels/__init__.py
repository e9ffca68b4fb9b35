"""The same step in several ways: plain tensor operations anywhere, compiled loops on the CPU, Triton's on a GPU.

Every way offers two sweeps, `first` (moments, and the sums of squares that the norms need) and `second` (the weights),
so that norms can be completed over processes in between, and `both` for layers that are whole.
"""
