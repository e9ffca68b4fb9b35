"""Time and memory of a run on this machine, its hardware, and advice on the batch size."""
