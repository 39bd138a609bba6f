"""Restyle image datasets by the million. The public face is `stylejobs.api`; this package imports nothing."""

__version__ = "0.1.0"
