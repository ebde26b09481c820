"""llama3_jax: the system of "The Llama 3 Herd of Models" (arXiv 2407.21783) in JAX."""

__version__ = '0.1.0'
