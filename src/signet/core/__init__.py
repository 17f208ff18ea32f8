"""The rules of Signet: pure functions and frozen values, no I/O, no clock, no dice, no framework."""
