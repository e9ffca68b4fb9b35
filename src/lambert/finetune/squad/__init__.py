"""SQuAD v1.1 and v2.0: questions → windows → fine-tuned span logits → answers → exact match and F1."""
