"""Run labsync as `python -m labsync`."""

from labsync.cli import main

main()
