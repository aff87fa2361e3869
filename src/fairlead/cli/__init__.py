"""The command line: one file per command. Only what a command needs is imported."""
