"""The use cases, in order: what happens to an exchange, and what can be asked afterwards."""
