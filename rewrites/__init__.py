"""What may be rewritten into what: rules as data, the normal form, and saturated tables of equal expressions."""

from rewrites.rules import RULES, Rule
from rewrites.table import Node, Table

__all__ = ["RULES", "Node", "Rule", "Table"]
