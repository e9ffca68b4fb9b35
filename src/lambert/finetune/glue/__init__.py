"""Five tasks of GLUE: sentences and pairs → a fine-tuned classifier → the metrics of the task."""
