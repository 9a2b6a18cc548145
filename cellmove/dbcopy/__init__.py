"""nova's databases, and the rows between them: nothing here knows of steps or services."""
