"""Checkpoints on disk: format, asynchronous writer, resume, the run's directory, export."""
