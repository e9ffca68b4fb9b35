"""BERT: encoder, heads, published sizes, and the Hugging Face folder layout."""
