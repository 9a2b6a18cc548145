"""Move an OpenStack server from one Nova cell to another."""

__version__ = "0.1.0"
