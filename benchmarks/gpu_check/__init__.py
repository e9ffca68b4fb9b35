"""Twelve checks of lambert on one GPU (docs/gpu.md)."""
