"""BERT's training path on processors that multiply bfloat16: what lies between the products, compiled by numba."""
