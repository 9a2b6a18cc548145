"""The kill sweep over the fake cloud: `python -m tests.crash` prints what came of it as JSON."""
