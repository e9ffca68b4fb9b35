"""SQuAD v1.1 and v2.0: questions → windows → fine-tuned span scores → answers → exact match and F1."""
