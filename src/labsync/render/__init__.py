"""The only place that prints: data to stdout, everything for people to stderr."""
