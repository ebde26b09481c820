"""Robustness: whether the way of asking moves the scores (5.1.2, 5.1.3)."""
