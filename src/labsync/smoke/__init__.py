"""Smoke tests: every model proven by running it once in the environment it will be used in."""
