"""What a run writes down: the journal's writer, its reader and its records."""
