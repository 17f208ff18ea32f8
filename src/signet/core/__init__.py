"""The rules of Signet: pure functions, frozen values; no I/O, clock, dice or framework."""
