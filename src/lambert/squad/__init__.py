"""SQuAD v1.1: questions → windows → fine-tuned span scores → answers → exact match and F1."""
