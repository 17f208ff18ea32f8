"""The registry directory of the demo, as data files: what `examples/types` has, in one place."""
