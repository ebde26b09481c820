"""Tools of a model: programs that it may write and run (4.3.5)."""
