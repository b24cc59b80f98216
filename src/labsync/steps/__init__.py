"""The steps that workflows are made of: each observes, plans with pure functions, applies, and reports."""
