"""The command line: parses, calls one workflow function, renders its value."""

from labsync.cli.app import main

__all__ = ["main"]
