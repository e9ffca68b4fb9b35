"""What a run will need and what a machine can give, as plain numbers; knows training only through files."""
