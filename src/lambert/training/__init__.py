"""From batches to a trained model: recipe, schedule, step, checkpoints, journal, trainer."""
