"""Torch expressions as interned nodes, and their text.

A ``Node`` knows nothing of axes: equal torch code is one node and is computed once. A ``Value`` labels the
dimensions of a node with axes; because they are named, a view is determined by the dimensions wanted, and a
view of a view is a view of what lies below. ``Writer`` turns nodes into lines.
"""

from __future__ import annotations

import itertools
import keyword
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from sgraph.axis import Axis
from sgraph.program import DType

LINE: Final = 110
"""Longest printed line."""
INLINE: Final = 72
"""Longest expression that is printed inside another one."""

COMPARE, ADD, MUL, NEGATE, POWER, ATOM = range(6)
"""Binding strength of printed operators."""

Dims = tuple[Axis | None, ...]
"""Axis of each dimension of a torch value; None for a dimension of extent 1."""

CASTS: Final = {DType.FP32: "{}.float()", DType.FP64: "{}.double()"}
WORDS: Final = {"@": "dot", "*": "product", "/": "quotient", "+": "total", "-": "difference"}


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One torch expression: a template and its operands. Interned by ``Nodes``, compared by identity."""

    template: str
    """The text, with one ``{}`` per operand."""
    args: tuple[Node, ...] = ()
    needs: tuple[int, ...] = ()
    """How strongly each operand must bind to go without parentheses."""
    level: int = ATOM
    """How strongly the text binds."""
    dtype: DType | None = None
    """Element type; None for a Python number, BOOL for a condition."""
    word: str = "value"
    """What a variable that holds it is called."""
    statement: bool = False
    """Whether it is always given a name."""
    picks: tuple[int | None, ...] | None = None
    """Of a view: which dimension of its operand each dimension is; None for a new one of extent 1."""
    rank: int = 0
    """Of a view: the number of dimensions of its operand."""


@dataclass(frozen=True, slots=True)
class Value:
    """A torch expression and the axes of its dimensions."""

    node: Node
    dims: Dims = ()

    @property
    def axes(self) -> frozenset[Axis]:
        """The named axes."""
        return frozenset(a for a in self.dims if a is not None)


class Nodes:
    """Interned torch expressions and the constructors for values made of them."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[Node, ...], DType | None], Node] = {}
        self.dims: dict[Node, Dims] = {}
        """The axes under which a node was first used; what its comment says."""

    def make(self, node: Node, dims: Dims = ()) -> Value:
        """The interned node under these axes."""
        node = self._known.setdefault((node.template, node.args, node.dtype), node)
        self.dims.setdefault(node, dims)
        return Value(node, dims)

    def number(self, value: Fraction | float) -> Value:
        """A Python number."""
        number = float(value)
        text = repr(number) if math.isfinite(number) else f'float("{number}")'
        return self.make(Node(text, level=NEGATE if text.startswith("-") else ATOM))

    def unary(self, template: str, a: Value, *, word: str, dtype: DType | None = None) -> Value:
        """A function or method of one value."""
        need = ATOM if template.startswith("{}") else COMPARE
        return self.make(Node(template, (a.node,), (need,), dtype=dtype or a.node.dtype, word=word), a.dims)

    def cast(self, a: Value, dtype: DType) -> Value:
        """``a`` in another element type; a widening undone is the narrow value itself."""
        node = a.node
        if node.dtype is dtype:
            return a
        if node.picks is not None:
            return self.view(Value(self.cast(_base(a), dtype).node, _base(a).dims), a.dims)
        if node.word == "cast" and node.args[0].dtype is dtype and _widens(dtype, node.dtype):
            return Value(node.args[0], a.dims)
        template = CASTS.get(dtype, f"{{}}.to(torch.{dtype.value})")
        return self.unary(template, a, word="cast", dtype=dtype)

    def binary(self, sign: str, a: Value, b: Value, dims: Dims, *, dtype: DType | None = None) -> Value:
        """``a sign b`` where the operands broadcast to ``dims``."""
        a, b = self.spread(a, dims), self.spread(b, dims)
        level = {"+": ADD, "-": ADD, "*": MUL, "/": MUL}.get(sign, COMPARE)
        kind = dtype or a.node.dtype or b.node.dtype
        word = WORDS.get(sign, "condition")
        return self.make(Node(f"{{}} {sign} {{}}", (a.node, b.node), (level, level + 1), level, kind, word), dims)

    def function(self, name: str, arguments: Sequence[Value], dims: Dims, dtype: DType | None) -> Value:
        """``torch.name(arguments)``, pointwise with broadcasting."""
        nodes = tuple(self.spread(a, dims).node for a in arguments)
        template = f"{name}({', '.join('{}' for _ in nodes)})"
        return self.make(
            Node(template, nodes, (COMPARE,) * len(nodes), dtype=dtype, word=name.removeprefix("torch.")), dims
        )

    def reduce(self, method: str, a: Value, axes: Iterable[Axis]) -> Value:
        """A reduction that keeps the dimensions, with extent 1."""
        chosen = set(axes)
        places = [i for i, axis in enumerate(a.dims) if axis in chosen]
        where = str(places) if len(places) > 1 else "-1" if places[0] == len(a.dims) - 1 else str(places[0])
        names = "_".join(identifier(axis) for axis in a.dims if axis in chosen)
        template = f"{{}}.{method}({where}, keepdim=True)"
        word = f"{method.removeprefix('a')}_{names}"
        dims = tuple(None if axis in chosen else axis for axis in a.dims)
        return self.make(Node(template, (a.node,), (ATOM,), dtype=a.node.dtype, word=word, statement=True), dims)

    def spread(self, a: Value, dims: Dims) -> Value:
        """A view of ``a`` that broadcasts to ``dims``."""
        if len(a.dims) <= len(dims):
            pairs = zip(reversed(a.dims), reversed(dims), strict=False)
            if all(have is None or have is want or have == want for have, want in pairs):
                return a
        wanted = [axis if axis in a.axes else None for axis in dims]
        return self.view(a, tuple(itertools.dropwhile(lambda axis: axis is None, wanted)))

    def view(self, a: Value, dims: Dims) -> Value:
        """The same elements with other dimensions: permuted, units dropped and inserted."""
        assert a.axes == {axis for axis in dims if axis is not None}
        base = _base(a)
        if base.dims == dims:
            return base
        template, picks = _view_template(base.dims, dims)
        node = Node(
            "{}" + template, (base.node,), (ATOM,), dtype=base.node.dtype, word="view", picks=picks, rank=len(base.dims)
        )
        return self.make(node, dims)


def _widens(narrow: DType, wide: DType | None) -> bool:
    return wide in (DType.FP32, DType.FP64) and narrow in (DType.BF16, DType.FP16, DType.FP32)


def _base(a: Value) -> Value:
    """What a view looks at, with its axes; the value itself if it is no view."""
    if a.node.picks is None:
        return a
    dims: list[Axis | None] = [None] * a.node.rank
    for axis, pick in zip(a.dims, a.node.picks, strict=True):
        if pick is not None:
            dims[pick] = axis
    return Value(a.node.args[0], tuple(dims))


def _view_template(have: Dims, want: Dims) -> tuple[str, tuple[int | None, ...]]:
    """Text and picks of a view; units are matched in place where the order of the axes stays."""
    order = [axis for axis in want if axis is not None]
    named = [axis for axis in have if axis is not None]
    if order == named:
        index, picks = _index(have, want)
        return index, picks
    squeezed, _ = _index(have, tuple(named))
    places = [named.index(axis) for axis in order]
    count = len(places)
    swap = [*range(count - 2), count - 1, count - 2]
    text = ".mT" if places == swap else f".permute({', '.join(map(str, places))})"
    expanded, _ = _index(tuple(order), want)
    return squeezed + text + expanded, tuple(None if axis is None else have.index(axis) for axis in want)


def _index(have: Dims, want: Dims) -> tuple[str, tuple[int | None, ...]]:
    parts: list[str] = []
    picks: list[int | None] = []
    place = 0
    for axis in want:
        while axis is not None and have[place] is None:
            parts.append("0")
            place += 1
        if axis is not None or (place < len(have) and have[place] is None):
            parts.append(":")
            picks.append(place)
            place += 1
        else:
            parts.append("None")
            picks.append(None)
    parts += ["0"] * (len(have) - place)
    while parts and parts[-1] == ":":
        parts.pop()
    return (f"[{', '.join(parts)}]" if parts else ""), tuple(picks)


def identifier(name: object) -> str:
    """Any text as part of a Python name."""
    return re.sub(r"\W", "_", str(name))


# ----------------------------------------------------------------------------------------------- text


class Writer:
    """Nodes as lines of a function body; what is used twice, reduced or contracted gets a name."""

    def __init__(self, dims: dict[Node, Dims], taken: Iterable[str], uses: Counter[Node]) -> None:
        self._dims = dims
        self._uses = uses
        self._taken = {*taken, *keyword.kwlist, "torch", "F", "float", "max", "min"}
        self._texts: dict[Node, tuple[str, int]] = {}
        self._named: set[Node] = set()
        self._lines: list[str] = []

    def block(self, roots: Sequence[tuple[str, Node]]) -> list[str]:
        """The lines that assign the roots to variables of the given names."""
        self._lines = []
        for name, root in roots:
            for node in ordered_nodes([root]):
                if node in self._texts:
                    continue
                self._texts[node] = (self._compose(node), node.level)
                repeated = self._uses[node] > 1 and node.args and node.picks is None
                if node is not root and (node.statement or repeated):
                    self._name(node)
            self._assign(root, name)
        return self._lines

    def _name(self, node: Node) -> None:
        """Assign the node to a variable of its own."""
        word = node.word
        if node.word == "cast":
            word = (
                f"{self._texts[node.args[0]][0]}_{node.dtype}"
                if self._texts[node.args[0]][0].isidentifier()
                else "cast"
            )
        name = next(
            n for n in itertools.chain([word], (f"{word}_{i}" for i in itertools.count(2))) if n not in self._taken
        )
        self._taken.add(name)
        self._assign(node, name)

    def _assign(self, node: Node, name: str) -> None:
        line = f"    {name} = {self._texts[node][0]}"
        comment = f"# [{', '.join('1' if a is None else str(a) for a in self._dims[node])}]"
        if len(line) + len(comment) + 2 <= LINE:
            self._lines.append(f"{line}  {comment}")
        else:
            self._lines += [f"    {comment}", line]
        if node.args:
            self._texts[node] = (name, ATOM)
            self._named.add(node)

    def _compose(self, node: Node) -> str:
        """The text of a node, long operands moved to lines of their own first."""
        while True:
            operands = [self._texts[a] for a in node.args]
            parts = [t if level >= need else f"({t})" for (t, level), need in zip(operands, node.needs, strict=True)]
            text = node.template.format(*parts)
            inline = [a for a in node.args if a.args and a not in self._named and len(self._texts[a][0]) > 20]
            if len(text) <= INLINE or not inline:
                return text
            longest = max(inline, key=lambda a: len(self._texts[a][0]))
            # A view is printed with what it looks at: a name for the base keeps it short.
            base = longest.args[0] if longest.picks is not None and longest.args[0] not in self._named else longest
            if base is not longest and base.args:
                self._name(base)
                self._texts[longest] = (self._compose(longest), longest.level)
            else:
                self._name(longest)


def ordered_nodes(roots: Iterable[Node]) -> list[Node]:
    """Every node below the roots once, operands before their users."""
    done: dict[Node, None] = {}
    stack: list[tuple[Node, bool]] = [(r, False) for r in reversed(list(roots))]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded or not node.args:
            done[node] = None
        else:
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args))
    return list(done)


def count_uses(roots: Sequence[Node]) -> Counter[Node]:
    """How often each node's text would appear if only nodes used twice had names; views pass their uses on."""
    uses = Counter(roots)
    for node in reversed(ordered_nodes(roots)):
        for operand in node.args:
            uses[operand] += uses[node] if node.picks is not None else 1
    return uses
