"""The journal and the other files of a run folder: their names, writer, reader and records."""
