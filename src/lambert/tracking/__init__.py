"""A run's journal → TensorBoard or Weights & Biases, for people who keep their runs there; reads the journal only."""
