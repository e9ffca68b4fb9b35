"""Ranks: process group, gradient all-reduce, sharding, heartbeats, launcher."""
