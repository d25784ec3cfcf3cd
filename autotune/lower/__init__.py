"""Lowering: a family and its schedules as one readable Triton source."""

from autotune.lower.emit import lower
from sgraph.errors import LoweringLimit

__all__ = ["LoweringLimit", "lower"]
