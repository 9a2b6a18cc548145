"""Faults made on purpose between cellmove and what it talks to."""
