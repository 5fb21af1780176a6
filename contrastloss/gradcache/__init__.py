"""Gradient caching: one exact loss of a large batch whose encoders run in chunks."""

from .cache import GradCache, step

__all__ = ["GradCache", "step"]
