"""Clusters that are not here: predicted step time, duration and cost, and simulated ranks."""
