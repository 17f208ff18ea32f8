"""Measurements: ratios taken in one run, never bare numbers of one machine."""
