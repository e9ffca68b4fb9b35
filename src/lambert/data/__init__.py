"""Token store → batches, each a pure function of (corpus, settings, seed, phase, index)."""
