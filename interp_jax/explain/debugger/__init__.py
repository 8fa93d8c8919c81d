"""Why this token rather than that one: what every node of a run writes, and what would change without it."""
