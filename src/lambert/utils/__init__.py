"""Small things that several packages share: files, formatting."""
