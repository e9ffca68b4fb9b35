"""GLUE's smaller tasks: sentences and pairs → a fine-tuned classifier → the task's own figures."""
