"""labsync beside its peers: `python -m benchmarks`, from the project's root.

`goals` says what is measured and what is wanted, `workloads` and `growth` and `kills` set it up, `peers` and
`labs` know the commands, `measure` runs one, `tables` turns the results into `docs/performance.md`.
"""
