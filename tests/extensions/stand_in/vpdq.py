"""Stands in for the compiled package vpdq where it cannot be installed: enough to compare, nothing to hash with."""


class VpdqFeature:
    """Named in annotations of the peer."""
