"""What all fine-tuning shares: the training loop, seeds with their confidence interval, cached results."""
