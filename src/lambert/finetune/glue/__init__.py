"""The tasks of GLUE: its files → examples, and the metrics of each task."""
