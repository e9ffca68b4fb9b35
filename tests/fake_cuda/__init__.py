"""A GPU that computes nothing, for tests on a CPU: shapes, dtypes and devices are followed, and launches are counted.

Everything on "cuda" is a fake tensor; corpus, files and everything on the CPU are real. It runs in a process of its
own, because PyTorch must find the device when it is imported. It cannot see numbers, streams, memory or time.
"""
