"""Takes each protection out, one at a time, and sees that a test fails: `python -m tests.mutations`."""
