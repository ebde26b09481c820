"""Verifiable tasks: one object serves evaluation, SFT data and reward (sections 4, 5)."""
