"""One optimizer step: state, losses, micro-batches, evaluation, timing."""
