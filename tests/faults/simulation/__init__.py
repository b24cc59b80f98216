"""Seeded runs of labsync on a disk, a network and clocks that fail; see `world.World`."""
