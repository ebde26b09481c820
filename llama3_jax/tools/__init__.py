"""Tools of a model: what it may call, and how its calls are run (4.3.5)."""
