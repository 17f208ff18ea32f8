"""One file per resource; each returns its operations, given what they call."""
