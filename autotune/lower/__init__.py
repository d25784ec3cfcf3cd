"""Lowering: a family and its schedules as one readable Triton source."""

from autotune.layout import LoweringLimit
from autotune.lower.emit import lower

__all__ = ["LoweringLimit", "lower"]
