"""labsync brings a machine learning lab to a fresh machine, every byte checked."""

__version__ = "0.1.0"
