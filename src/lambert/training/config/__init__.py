"""From what is asked for to every number of a run: arguments, recipe, phases, schedule, precision."""
