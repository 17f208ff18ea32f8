"""Receipts and their proof: canonical JSON, keys, chains, export bundles, offline verification.

A library of its own: the standard library and `cryptography`, `orjson` if it is installed; no
network, no clock, nothing else of this project. `docs/reference/receipts.md` is the format as a
specification; the steps of the proof carry the same numbers there and in `verify.py`.
"""
