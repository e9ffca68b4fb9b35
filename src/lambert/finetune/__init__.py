"""Fine-tuning. What all tasks share is here; `squad` and `glue` are presets of it and do not import each other."""
