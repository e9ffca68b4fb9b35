"""Journals of runs → TensorBoard or Weights & Biases. Reads journals only."""
