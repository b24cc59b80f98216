"""What a lab asks for: reading the manifest, its values, selectors and templates."""

from labsync.manifest.parse import find_manifest, load_manifest, parse_manifest
from labsync.manifest.values import parse_duration, parse_size

__all__ = ["find_manifest", "load_manifest", "parse_duration", "parse_manifest", "parse_size"]
