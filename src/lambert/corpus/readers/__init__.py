"""One file a format: each turns a source into documents, in memory that does not grow with the source."""
