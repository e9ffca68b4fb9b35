"""The command line: one short file a verb. Only this room prints, exits and reads arguments."""
