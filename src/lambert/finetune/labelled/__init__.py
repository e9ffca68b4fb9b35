"""Fine-tuning on labelled examples: classes of a text or a pair, several labels, a number, or tags of words."""
