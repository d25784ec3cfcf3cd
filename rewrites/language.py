"""The language of expressions and rules as egglog text, and the way back.

One constructor per operator; all attributes are integers: a leaf is its number, a function name is its number,
an axis is one bit, so that the free axes of a class are a bit mask whose merge is the bitwise *and*. Datalog
rules derive free axes, sign and finiteness from the same transfer functions as ``sgraph.expr``.

A *scalar* (closed, no reduction below: ``1/extent(k)``, a coefficient, their products) is one opaque constructor
inside the engine and is expanded on the way back: every rank-0 factor in the associative-commutative part of
a graph would multiply its size by about 2.6.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from rewrites.rules import AxisVariable, Condition, Fact, Pattern, Rule, Term, Variable, axis_variables, variables
from rewrites.table import Node, Table, node
from sgraph.axis import Axis, ordered
from sgraph.errors import SaturationFailed
from sgraph.expr import REDUCTIONS, Expr, Op, Read, Sign, factors, make, mul, nonempty, product, walk

Rows = Mapping[str, Sequence[Sequence[int]]]
"""What the engine returns: per function its rows, inputs then output; classes are numbered from 0."""

LARGEST_AXES: Final = 62
"""A mask is a signed 64-bit integer."""

CONSTRUCTORS: Final[dict[str, Op]] = {
    "Leaf": Op.LEAF,
    "Const": Op.CONST,
    "NegInf": Op.NEG_INF,
    "Extent": Op.EXTENT,
    "Index": Op.INDEX,
    "Add": Op.ADD,
    "Mul": Op.MUL,
    "Recip": Op.RECIP,
    "Sqrt": Op.SQRT,
    "Exp": Op.EXP,
    "Log": Op.LOG,
    "Call": Op.CALL,
    "MaxOf": Op.MAX2,
    "MinOf": Op.MIN2,
    "Lt": Op.LT,
    "Le": Op.LE,
    "Eq": Op.EQ,
    "Where": Op.WHERE,
    "Sum": Op.SUM,
    "Max": Op.MAX,
    "Min": Op.MIN,
}
NAMES: Final = {op: name for name, op in CONSTRUCTORS.items()}
WITH_ATTRIBUTE: Final = frozenset({Op.LEAF, Op.CONST, Op.EXTENT, Op.INDEX, Op.CALL, *REDUCTIONS})
ARITY: Final = {
    **dict.fromkeys((Op.LEAF, Op.CONST, Op.NEG_INF, Op.EXTENT, Op.INDEX), 0),
    **dict.fromkeys((Op.RECIP, Op.SQRT, Op.EXP, Op.LOG, Op.CALL, *REDUCTIONS), 1),
    **dict.fromkeys((Op.ADD, Op.MUL, Op.MAX2, Op.MIN2, Op.LT, Op.LE, Op.EQ), 2),
    Op.WHERE: 3,
}
SCALAR: Final = "Scalar"
EXPORTED: Final = (*CONSTRUCTORS, SCALAR, "free", "Positive", "Nonnegative", "Root")
"""Functions whose rows make the table."""
COUNTED: Final = (*CONSTRUCTORS, SCALAR)
"""Functions whose rows are e-nodes."""


# ------------------------------------------------------------------------------------------------- analysis


def _declarations() -> list[str]:
    lines = ["(sort T)", f"(constructor {SCALAR} (i64) T)"]
    for name, op in CONSTRUCTORS.items():
        inputs = ["i64"] * (op in WITH_ATTRIBUTE) + ["T"] * ARITY[op]
        lines.append(f"(constructor {name} ({' '.join(inputs)}) T)")
    lines.append("(function free (T) i64 :merge (& old new))")
    lines += [f"(relation {name} (T))" for name in ("Positive", "Nonnegative", "Finite", "Factor")]
    lines += ["(relation Nonempty (i64))", "(relation MaybeEmpty (i64))", "(relation Root (i64 T))"]
    return [*lines, "(ruleset analysis)", "(ruleset rewriting)"]


def _free_rules() -> list[str]:
    lines: list[str] = []
    for name, op in CONSTRUCTORS.items():
        operands = [f"x{i}" for i in range(ARITY[op])]
        pattern = _call(name, (["k"] if op in WITH_ATTRIBUTE else []) + operands)
        facts = [f"(= f{i} (free {x}))" for i, x in enumerate(operands)]
        match op:
            case Op.LEAF:
                continue  # stated per leaf
            case Op.INDEX:
                value = "k"
            case _ if not operands:
                value = "0"
            case _:
                value = "f0"
                for i in range(1, len(operands)):
                    value = f"(| {value} f{i})"
                value = f"(& {value} (not-i64 k))" if op in REDUCTIONS else value
        lines.append(f"(rule ((= c {pattern}) {' '.join(facts)}) ((set (free c) {value})) :ruleset analysis)")
    return lines


_SIGNS: Final = (
    ("(Positive c)", "(Nonnegative c)"),
    ("(Nonnegative c)", "(Finite c)"),
    ("(= c (Const v)) (> v 0)", "(Positive c)"),
    ("(= c (Const v)) (= v 0)", "(Nonnegative c)"),
    ("(= c (Const v))", "(Finite c)"),
    ("(= c (Extent k))", "(Nonnegative c)"),
    ("(= c (Extent k)) (Nonempty k)", "(Positive c)"),
    ("(= c (Index k))", "(Nonnegative c)"),
    ("(= c (Exp a))", "(Nonnegative c)"),
    ("(= c (Exp a)) (Finite a)", "(Positive c)"),
    ("(= c (Mul a a))", "(Nonnegative c)"),
    ("(= c (Mul a (Mul a b))) (Nonnegative b)", "(Nonnegative c)"),
    ("(= c (Add a b)) (Positive a) (Nonnegative b)", "(Positive c)"),
    ("(= c (Add a b)) (Nonnegative a) (Positive b)", "(Positive c)"),
    ("(= c (Add a b)) (Nonnegative a) (Nonnegative b)", "(Nonnegative c)"),
    *(
        (f"(= c ({name} a b)) ({fact} a) ({fact} b)", f"({fact} c)")
        for name in ("Mul", "MinOf")
        for fact in ("Positive", "Nonnegative")
    ),
    *((f"(= c (MaxOf a b)) ({fact} {x})", f"({fact} c)") for x in "ab" for fact in ("Positive", "Nonnegative")),
    ("(= c (Recip a)) (Nonnegative a)", "(Positive c)"),
    ("(= c (Sqrt a))", "(Nonnegative c)"),
    ("(= c (Sqrt a)) (Positive a)", "(Positive c)"),
    *((f"(= c (Where q a b)) ({fact} a) ({fact} b)", f"({fact} c)") for fact in ("Positive", "Nonnegative", "Finite")),
    ("(= c (Sum k a)) (Nonnegative a)", "(Nonnegative c)"),
    ("(= c (Sum k a)) (Positive a) (Nonempty k)", "(Positive c)"),
    *(
        (f"(= c ({name} k a)) ({fact} a) (Nonempty k)", f"({fact} c)")
        for name in ("Max", "Min")
        for fact in ("Positive", "Nonnegative", "Finite")
    ),
    *((f"(= c ({name} a b)) (Finite a) (Finite b)", "(Finite c)") for name in ("Add", "Mul", "MinOf")),
    *((f"(= c (MaxOf a b)) (Finite {x})", "(Finite c)") for x in "ab"),
    *((f"(= c ({name} a)) (Finite a)", "(Finite c)") for name in ("Recip", "Sqrt", "Log")),
    ("(= c (Call f a)) (Finite a)", "(Finite c)"),
    ("(= c (Sum k a)) (Finite a)", "(Finite c)"),
)
"""Sign and finiteness of a class from one of its nodes, as in ``sgraph.expr``."""


def _factor_rules() -> list[str]:
    """Which classes count as one factor of a product (``Rule.single``).

    Not a sum from which a factor can be taken, nor the reciprocal of a product: taken apart they give the same
    products, and with every way to take them apart half-way a table would be many times larger. Those that the
    values are written with do count (``encode``), so that they can be stored and read as they are.
    ``common`` is the set of axes that every factor of a class varies over.
    """
    lines = ["(function common (T) i64 :merge (& old new))"]
    for name, op in CONSTRUCTORS.items():
        inputs = ["k"] * (op in WITH_ATTRIBUTE) + [f"x{i}" for i in range(ARITY[op])]
        node = f"(= c {_call(name, inputs)})"
        if op is Op.MUL:
            facts, action = f"{node} (= f0 (common x0)) (= f1 (common x1))", "(set (common c) (& f0 f1))"
            lines.append(f"(rule ({facts}) ({action}) :ruleset analysis)")
            continue
        lines.append(f"(rule ({node} (= f (free c))) ((set (common c) f)) :ruleset analysis)")
        match op:
            case Op.SUM:
                lines.append(f"(rule ({node} (= k (& k (common x0)))) ((Factor c)) :ruleset analysis)")
                lines.append(f"(rule ({node} (MaybeEmpty k)) ((Factor c)) :ruleset analysis)")
            case Op.RECIP:
                lines.append(f"(rule ({node} (Factor x0)) ((Factor c)) :ruleset analysis)")
            case _:
                lines.append(f"(rule ({node}) ((Factor c)) :ruleset analysis)")
    scalar = f"(= c ({SCALAR} n))"
    lines.append(f"(rule ({scalar} (= f (free c))) ((set (common c) f) (Factor c)) :ruleset analysis)")
    return lines


def preamble(rules: Sequence[Rule]) -> str:
    """Declarations, analysis and rewrites: the part of a program that does not depend on the values."""
    lines = _declarations() + _free_rules() + _factor_rules()
    lines += [f"(rule ({facts}) ({action}) :ruleset analysis)" for facts, action in _SIGNS]
    # Two rules may come to one rewrite, such as a user's and one of ours; the engine takes it once.
    lines += dict.fromkeys(line for rule in rules for line in rule_lines(rule))
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------- rules


def rule_lines(rule: Rule) -> list[str]:
    """The egglog rewrites of a rule: one, or two if it goes both ways.

    Raises:
        SaturationFailed: a side uses a variable that the matched side does not bind, or matches everything.
    """
    pairs = [(rule.left, rule.right)] + ([(rule.right, rule.left)] if rule.both_ways else [])
    lines: list[str] = []
    for left, right in pairs:
        unbound = set(variables(right)) - set(variables(left))
        asked = {c.variable for c in rule.when if c.variable is not None} - set(variables(left))
        axes = {c.axis for c in rule.when if c.axis is not None} | set(axis_variables(right))
        missing = [*unbound, *asked, *(axes - set(axis_variables(left)))]
        if missing or isinstance(left, Variable):
            what = f"does not bind {', '.join(sorted(str(m) for m in missing))}" if missing else "matches everything"
            raise SaturationFailed(
                f"the side {left} of rule {rule.name} {what}",
                where=str(rule),
                do="give the rule one direction only, or mention every variable on the matched side",
            )
        guard = " ".join([*(_guard(c) for c in rule.when), *(f"(Factor of_{v})" for v in rule.single)])
        when = f" :when ({guard})" if guard else ""
        lines.append(f"(rewrite {_pattern(left)} {_pattern(right)}{when} :ruleset rewriting)")
    return lines


def _guard(condition: Condition) -> str:
    match condition.fact:
        case Fact.NOT_FREE:
            return f"(= 0 (& axis_{condition.axis} (free of_{condition.variable})))"
        case Fact.NONEMPTY:
            return f"(Nonempty axis_{condition.axis})"
        case Fact.NONNEGATIVE | Fact.POSITIVE | Fact.FINITE:
            return f"({condition.fact.name.title()} of_{condition.variable})"


def _pattern(pattern: Pattern) -> str:
    match pattern:
        case Variable(name):
            return f"of_{name}"
        case Term(op, args, attr):
            return _call(NAMES[op], [*_pattern_attribute(op, attr), *map(_pattern, args)])
        case _:
            raise TypeError(f"not a pattern: {pattern!r}")


def _pattern_attribute(op: Op, attr: Fraction | AxisVariable | str | None) -> list[str]:
    match attr:
        case None:
            return []
        case AxisVariable(name):
            return [f"axis_{name}"]
        case Fraction() if attr in _PLAIN_CONSTANTS:
            return [str(attr)]
        case _:
            raise SaturationFailed(
                f"{op.value} with {attr} in a rule",
                do="rules may name the constants 0, 1 and -1 and no functions; the normal form folds others",
            )


def _call(name: str, arguments: Iterable[str]) -> str:
    return f"({' '.join([name, *arguments])})"


# -------------------------------------------------------------------------------------------------- scalars

_PLAIN_CONSTANTS: Final = frozenset({Fraction(0), Fraction(1), Fraction(-1)})
_SCALAR_LEAVES: Final = frozenset({Op.CONST, Op.EXTENT, Op.LEAF})


def scalars(roots: Iterable[Expr]) -> frozenset[Expr]:
    """The nodes below ``roots`` that are closed and contain no reduction and no minus infinity."""
    found: set[Expr] = set()
    for part in walk(roots):
        if part.free or part.op in REDUCTIONS or not part.finite:
            continue
        if part.op in _SCALAR_LEAVES if not part.args else all(a in found for a in part.args):
            found.add(part)
    return frozenset(found)


def collapse(value: Expr) -> Expr:
    """An equal expression in which every product has at most one scalar factor, outside of sums.

    Scalar factors of a product are gathered in a canonical order, and moved out of sums over non-empty axes.
    Nothing else changes: a product with at most one scalar factor keeps its association.
    """
    known = set(scalars([value]))
    done: dict[Expr, Expr] = {}
    for part in walk([value]):
        rebuilt = make(part.op, tuple(done[a] for a in part.args), part.attr)
        if part.op is Op.MUL:
            rebuilt = _gather(rebuilt, known)
        elif part.op is Op.SUM and nonempty(part.axis) and part not in known:
            rebuilt = _lift(rebuilt, known)
        done[part] = rebuilt
        if part in known:
            known.add(rebuilt)
    return done[value]


def _gather(value: Expr, known: set[Expr]) -> Expr:
    """A product with its scalar factors gathered into one, if it has several."""
    coefficients, others = _split(value, known)
    if len(coefficients) < 2:
        return value
    return mul(product(coefficients), product(others)) if others else product(coefficients)


def _lift(value: Expr, known: set[Expr]) -> Expr:
    """A sum with the scalar factors of its operand moved out."""
    coefficients, others = _split(value.args[0], known)
    if not coefficients or not others:
        return value
    return mul(product(coefficients), make(Op.SUM, (product(others),), value.axis))


def _split(value: Expr, known: set[Expr]) -> tuple[list[Expr], list[Expr]]:
    """The scalar factors in canonical order, and the others in order of appearance."""
    found = factors(value)
    return sorted((f for f in found if f in known), key=lambda e: e.digest), [f for f in found if f not in known]


# -------------------------------------------------------------------------------------------------- encoding


@dataclass(slots=True)
class Encoding:
    """The numbers that stand for leaves, scalars, functions and axes in one program."""

    reads: dict[Read, int] = field(default_factory=dict[Read, int])
    """Number of each leaf."""
    opaque: dict[Expr, int] = field(default_factory=dict[Expr, int])
    """Number of each scalar."""
    functions: dict[str, int] = field(default_factory=dict[str, int])
    """Number of each named function."""
    axes: dict[Axis, int] = field(default_factory=dict[Axis, int])
    """Mask, one bit, of each axis."""

    def mask(self, axes: Iterable[Axis]) -> int:
        """The mask of a set of axes."""
        return sum(self.axes[a] for a in axes)

    def attribute(self, part: Expr) -> list[str]:
        """The attribute of a node as egglog text, as a list of at most one."""
        match part.attr:
            case Read() as read:
                return [str(self.reads.setdefault(read, len(self.reads)))]
            case Axis() as axis:
                return [str(self.axes[axis])]
            case str() as name:
                return [str(self.functions.setdefault(name, len(self.functions)))]
            case Fraction() as value:
                return [str(value)]
            case None:
                return []


def encode(values: Sequence[Expr], seeds: Sequence[tuple[Expr, Expr]]) -> tuple[str, Encoding]:
    """The part of an egglog program that states the values, and the numbers it uses.

    Raises:
        SaturationFailed: more axis copies than a mask has bits.
    """
    collapsed = [collapse(v) for v in values]
    equal = [(collapse(part), collapse(seed)) for part, seed in seeds]
    roots = [*collapsed, *(e for pair in equal for e in pair)]
    encoding = Encoding()
    for position, axis in enumerate(_all_axes(roots)):
        encoding.axes[axis] = 1 << position
    if len(encoding.axes) > LARGEST_AXES:
        raise SaturationFailed(
            f"the program uses {len(encoding.axes)} axes, copies included; the rewrite engine takes {LARGEST_AXES}",
            do="optimize the program in parts",
        )
    lines: list[str] = []
    name = _define(roots, encoding, lines)
    lines += [f"(Root {i} {name[value]})" for i, value in enumerate(collapsed)]
    lines += [f"(union {name[part]} {name[seed]})" for part, seed in equal]
    for axis, bit in encoding.axes.items():
        lines.append(f"({'Nonempty' if nonempty(axis) else 'MaybeEmpty'} {bit})")
        if axis != axis.base and not axis.level:
            lines.append(f"(union (Extent {bit}) (Extent {encoding.axes[axis.base]}))")
    return "\n".join(lines), encoding


def _all_axes(roots: Sequence[Expr]) -> tuple[Axis, ...]:
    """Every axis below the roots, free, bound or measured, with its base."""
    found: set[Axis] = set()
    for part in walk(roots):
        if isinstance(part.attr, Axis):
            found |= {part.attr, part.attr.base}
        elif isinstance(part.attr, Read):
            found |= {a for axis in part.attr.axes for a in (axis, axis.base)}
    return ordered(found)


def _define(roots: Sequence[Expr], encoding: Encoding, lines: list[str]) -> dict[Expr, str]:
    """One global per node outside of opaque scalars, and the facts of leaves and scalars."""
    known = scalars(roots)
    hidden = frozenset(e for e in known if len(e.args) > 1 or (e.op is Op.CONST and e.value not in _PLAIN_CONSTANTS))
    name: dict[Expr, str] = {}
    for part in _walk_outside(roots, hidden):
        if part in hidden:
            text = _call(SCALAR, [str(encoding.opaque.setdefault(part, len(encoding.opaque)))])
        else:
            text = _call(NAMES[part.op], [*encoding.attribute(part), *(name[a] for a in part.args)])
        name[part] = f"$v{len(name)}"
        lines.append(f"(let {name[part]} {text})")
        if part in hidden or part.op is Op.LEAF:
            lines += _stated_facts(part, name[part], encoding)
        if part.op is not Op.MUL:
            lines.append(f"(Factor {name[part]})")
    return name


def _walk_outside(roots: Sequence[Expr], hidden: frozenset[Expr]) -> list[Expr]:
    """As ``sgraph.expr.walk``, without what lies below hidden nodes only."""
    reached: set[Expr] = set()
    stack = list(roots)
    while stack:
        part = stack.pop()
        if part not in reached:
            reached.add(part)
            if part not in hidden:
                stack.extend(part.args)
    return [part for part in walk(roots) if part in reached]


def _stated_facts(part: Expr, name: str, encoding: Encoding) -> list[str]:
    facts = [f"(set (free {name}) {encoding.mask(part.free)})"]
    if part.sign is not Sign.ANY:
        facts.append(f"({'Positive' if part.sign is Sign.POSITIVE else 'Nonnegative'} {name})")
    if part.finite:
        facts.append(f"(Finite {name})")
    return facts


# -------------------------------------------------------------------------------------------------- decoding


def decode(rows: Rows, encoding: Encoding, *, truncated: bool, seconds: float, steps: int) -> Table:
    """The table of the engine's rows: scalars expanded, classes numbered from the roots on."""
    classes = _raw_nodes(rows, encoding)
    _expand_scalars(rows, encoding, classes)
    raw_roots = [cls for _, cls in sorted((row[0], row[1]) for row in rows["Root"])]
    number = _numbering(raw_roots, classes)
    all_nodes = tuple(
        tuple(dict.fromkeys(node(n.op, n.attr, (number[a] for a in n.args)) for n in classes[raw])) for raw in number
    )
    masks = {row[0]: row[1] for row in rows["free"]}
    sets = {mask: _axes_of(encoding, mask) for mask in {0, *masks.values()}}
    signs = dict.fromkeys((row[0] for row in rows["Nonnegative"]), Sign.NONNEGATIVE)
    signs.update(dict.fromkeys((row[0] for row in rows["Positive"]), Sign.POSITIVE))
    return Table(
        roots=tuple(number[raw] for raw in raw_roots),
        all_nodes=all_nodes,
        all_free=tuple(sets[masks.get(raw, 0)] for raw in number),
        all_signs=tuple(signs.get(raw, Sign.ANY) for raw in number),
        truncated=truncated,
        seconds=seconds,
        steps=steps,
    )


def _axes_of(encoding: Encoding, mask: int) -> frozenset[Axis]:
    """The axes of a mask."""
    return frozenset(axis for axis, bit in encoding.axes.items() if bit & mask)


def _raw_nodes(rows: Rows, encoding: Encoding) -> dict[int, list[Node]]:
    """The nodes of each class under the engine's class numbers, opaque scalars left out."""
    axis_of = {bit: axis for axis, bit in encoding.axes.items()}
    read_of = {number: read for read, number in encoding.reads.items()}
    function_of = {number: name for name, number in encoding.functions.items()}
    classes: dict[int, list[Node]] = {}
    for name, op in CONSTRUCTORS.items():
        for row in rows[name]:
            *inputs, output = row
            attr: Read | Fraction | str | Axis | None = None
            if op in WITH_ATTRIBUTE:
                first, inputs = inputs[0], inputs[1:]
                match op:
                    case Op.LEAF:
                        attr = read_of[first]
                    case Op.CONST:
                        attr = Fraction(first)
                    case Op.CALL:
                        attr = function_of[first]
                    case _:
                        attr = axis_of[first]
            classes.setdefault(output, []).append(node(op, attr, inputs))
    return classes


def _expand_scalars(rows: Rows, encoding: Encoding, classes: dict[int, list[Node]]) -> None:
    """Gives each opaque scalar its own node back, with classes for the scalars below it."""
    cls_of = {n: cls for cls, nodes in reversed(classes.items()) for n in reversed(nodes)}
    number = {row[0]: row[1] for row in rows[SCALAR]}
    fresh = 1 + max([*classes, *number.values()], default=0)
    built: dict[Expr, int] = {}
    for part in walk(encoding.opaque):
        entry = node(part.op, part.attr, (built[a] for a in part.args))
        if part in encoding.opaque:
            built[part] = number[encoding.opaque[part]]
            classes.setdefault(built[part], []).append(entry)
            cls_of.setdefault(entry, built[part])
        elif entry in cls_of:
            built[part] = cls_of[entry]
        else:
            built[part] = fresh
            classes[fresh] = [entry]
            cls_of[entry] = fresh
            fresh += 1


def _numbering(roots: Sequence[int], classes: Mapping[int, Sequence[Node]]) -> dict[int, int]:
    """New numbers in breadth-first order from the roots; what no root reaches has none."""
    number = dict.fromkeys(roots)
    queue = deque(number)
    while queue:
        for entry in classes[queue.popleft()]:
            for operand in entry.args:
                if operand not in number:
                    number[operand] = None
                    queue.append(operand)
    return {raw: position for position, raw in enumerate(number)}
