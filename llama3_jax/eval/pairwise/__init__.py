"""Pairwise evaluation on seven points: which model is better (5.3)."""
