"""The `signet` command. Each sub-command is a file of that name with `add_parser` and `run`."""
