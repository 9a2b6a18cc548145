"""The newest release of nova, which lives in an environment of its own (`make newest`)."""
