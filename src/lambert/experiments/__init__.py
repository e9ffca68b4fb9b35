"""Many runs, one table: what is to be run, running it side by side, and what came out."""
