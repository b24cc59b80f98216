"""The environment and its kernel: spec, lock, build beside and switch, prove."""
