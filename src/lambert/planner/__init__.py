"""Hardware that you do not have: predicted step time, duration and cost of a cluster, and simulated ranks."""
