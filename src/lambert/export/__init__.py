"""A model as other programs take it: Hugging Face, sentence-transformers, ONNX."""
