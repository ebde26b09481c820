"""Verifiable tasks: one object serves evaluation, SFT data and reward (4, 5)."""
