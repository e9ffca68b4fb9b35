"""The command line: one short file per subcommand. It parses, prints and exits; the API does the work."""
