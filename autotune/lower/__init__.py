"""Lowering: a family and its schedules as one readable Triton source."""

from autotune.lower.emit import lower
from autotune.lower.header import code_of, with_header
from sgraph.errors import LoweringLimit

__all__ = ["LoweringLimit", "code_of", "lower", "with_header"]
