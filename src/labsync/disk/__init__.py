"""The disk: where artifacts are used."""
