"""Gate 1, the proof: a finished sGraph computes its program, for all sizes, tile sizes and ragged tails.

A kernel is proved in two equations per stored tensor. What its schedule's statements compute, denoted over the
atoms of every tile split by code that the generator does not use, equals what the schedule names. What it names,
with earlier stored tensors replaced by what they were proved to hold, equals the claim. A graph is proved when
every kernel is and the claims of its outputs equal the program's values. Each equation is decided by the normal
form; a difference counts as a refutation only with numbers that show it, and otherwise as unknown.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from rewrites.normal_form import compare
from sgraph.axis import Axis
from sgraph.errors import UnsupportedOperator
from sgraph.evaluate import numerically_equal
from sgraph.expr import (
    REDUCTIONS,
    Expr,
    Op,
    const,
    leaf,
    leaves,
    make,
    mul,
    product,
    rebuild,
    rename,
    sum_over,
    walk,
)
from sgraph.ir import Kernel, SGraph
from sgraph.program import Program, Tensor
from sgraph.schedule import Schedule
from verify.arranged import arranged, without_shared_parts
from verify.denote import PAD, POSITION, ROOF, VALID, NoDenotation, denote, split
from verify.verdict import Obligation, Status, Verdict

_log = logging.getLogger("prism.verify")


class _Refused(Exception):
    """The graph is not well formed: nothing to put to the normal form; the message is the reason."""


def prove_equal(left: Expr, right: Expr) -> Verdict:
    """Whether ``right`` is defined and equal wherever ``left``, the specification, is defined.

    Refuted only with numbers at which the two were evaluated and differ.
    """
    return _timed(lambda: _equation("the two expressions", left, right, _same))


def prove_kernel(
    kernel: Kernel,
    schedule: Schedule,
    program: Program,
    claims: Mapping[str, Expr],
    stored: Iterable[Tensor] = (),
) -> Verdict:
    """Whether a schedule writes what its kernel's stores claim.

    Args:
        kernel: The kernel, with its claims.
        schedule: Its stages.
        program: Whose inputs it may read.
        claims: What each tensor stored before it holds, over the program's inputs.
        stored: Those tensors. Needed only where one has two copies of an axis, whose order the claim cannot tell.
    """
    tensors = {t.name: t for t in stored}
    return _timed(lambda: _kernel(kernel, schedule, program, claims, tensors))


def prove(graph: SGraph, schedules: Sequence[Schedule]) -> Verdict:
    """Whether kernels that run as scheduled, in order, compute every output of the graph's program."""
    return _timed(lambda: _graph(graph, schedules))


# ------------------------------------------------------------------------------------------------ parts


def _graph(graph: SGraph, schedules: Sequence[Schedule]) -> Verdict:
    if len(schedules) != len(graph.kernels):
        raise _Refused(f"{len(graph.kernels)} kernels and {len(schedules)} schedules")
    claims: dict[str, Expr] = {}
    tensors: dict[str, Tensor] = {}
    parts: list[Verdict] = []
    for kernel, schedule in zip(graph.kernels, schedules, strict=True):
        verdict = _kernel(kernel, schedule, graph.program, claims, tensors)
        parts.append(verdict)
        if verdict.status is not Status.PROVED:
            return _together(parts)
        claims |= {s.tensor.name: s.claim for s in kernel.stores}
        tensors |= {s.tensor.name: s.tensor for s in kernel.stores}
    for output in graph.program.outputs:
        name = output.tensor.name
        if name not in claims:
            raise _Refused(f"output {name} is never written")
        if (tensors[name].axes, tensors[name].dtype) != (output.tensor.axes, output.tensor.dtype):
            raise _Refused(f"output {name} is written with other axes or another element type than the program's")
        parts.append(_equation(f"output {name}: the program and the claim", output.value, claims[name], _same))
        if parts[-1].status is not Status.PROVED:
            break
    return _together(parts)


def _kernel(
    kernel: Kernel,
    schedule: Schedule,
    program: Program,
    claims: Mapping[str, Expr],
    tensors: Mapping[str, Tensor],
) -> Verdict:
    if schedule.kernel != kernel:
        raise _Refused(f"the schedule of kernel {kernel.name} belongs to another kernel")
    _check_stores(kernel, program, claims)
    try:
        written = denote(schedule)
    except NoDenotation as problem:
        raise _Refused(f"kernel {kernel.name}: {problem}") from problem
    parts: list[Verdict] = []
    for store, result in zip(kernel.stores, written, strict=True):
        subject = f"{result.tensor.name} of kernel {kernel.name}"
        sources = {x: _source(x, program, claims, tensors) for x in leaves([result.named])}
        named = rebuild(result.named, sources)
        parts.append(
            _equation(
                f"{subject}: what it names and what it computes", split(result.named), result.denoted, _full_tiles
            )
        )
        if parts[-1].status is Status.PROVED:
            parts.append(_equation(f"{subject}: the claim and what it names", store.claim, named, _same))
        if parts[-1].status is not Status.PROVED:
            break
    return _together(parts)


def _check_stores(kernel: Kernel, program: Program, claims: Mapping[str, Expr]) -> None:
    taken = {t.name for t in program.inputs} | set(claims)
    for store in kernel.stores:
        name, axes = store.tensor.name, store.tensor.named_axes
        if name in taken:
            raise _Refused(f"kernel {kernel.name} writes {name}, which exists already")
        taken.add(name)
        if len(set(axes)) != len(axes) or not store.claim.free <= set(axes):
            raise _Refused(f"{name} of kernel {kernel.name} and its claim have other axes")
        if store.tensor.finite and not store.claim.finite:
            raise _Refused(f"{name} of kernel {kernel.name} may hold minus infinity and is not declared to")


def _source(read: Expr, program: Program, claims: Mapping[str, Expr], tensors: Mapping[str, Tensor]) -> Expr:
    """What a leaf of a kernel denotes over the program's inputs, after checking that it reads what exists."""
    inputs = {t.name: t for t in program.inputs}
    tensor = inputs.get(read.name, tensors.get(read.name))
    claim = claims.get(read.name)
    if tensor is not None and read.name in inputs:
        claim = tensor.read()
    if claim is None:
        raise _Refused(f"{read.name} is read before any kernel wrote it")
    axes = tensor.named_axes if tensor is not None else _axes_of(claim, read)
    if [a.base for a in axes] != [a.base for a in read.axes]:
        raise _Refused(f"{read.name} is read with other axes than it is stored with")
    if read.finite and not claim.finite:
        raise _Refused(f"{read.name} may hold minus infinity and is read as if it could not")
    return rename(claim, dict(zip(axes, read.axes, strict=True)))


def _axes_of(claim: Expr, read: Expr) -> tuple[Axis, ...]:
    """The claim's axis of each dimension of a stored tensor, where their names tell."""
    own = {a.base: a for a in claim.free}
    if len(own) < len(claim.free) or len({a.base for a in read.axes}) < len(read.axes):
        raise _Refused(f"{read.name} has two copies of an axis: their order has to be given")
    return tuple(own.get(a.base, a.base) for a in read.axes)


def _equation(subject: str, spec: Expr, candidate: Expr, concrete: Callable[[Expr], Expr]) -> Verdict:
    """Decide one equation; ``concrete`` makes a side fit for evaluation when a counterexample is looked for."""

    def answer(status: Status, reason: str, facts: tuple[str, ...] = (), counterexample: str | None = None) -> Verdict:
        obligation = Obligation(subject, spec, candidate, status)
        return Verdict(status, f"{subject} {reason}", facts, counterexample, obligations=(obligation,))

    if spec is candidate:
        return answer(Status.PROVED, "are the same expression")
    if arranged(spec) is arranged(candidate):
        return answer(Status.PROVED, "are the same but for the order of terms and factors")
    found = compare(spec, candidate)
    if found.equal:
        return answer(Status.PROVED, "are equal", found.facts)
    if not found.decided and (smaller := without_shared_parts(spec, candidate)) is not None:
        again = compare(*smaller)
        if again.equal:
            return answer(Status.PROVED, "are equal, whatever the parts are that they share", again.facts)
    try:
        witness = numerically_equal(concrete(spec), concrete(candidate))
    except UnsupportedOperator as problem:
        return answer(Status.UNKNOWN, f"were not proved equal: {found.reason}; not evaluated: {problem}", found.facts)
    if witness is not None:
        return answer(Status.REFUTED, "differ", found.facts, str(witness))
    return answer(Status.UNKNOWN, f"were not proved equal: {found.reason}", found.facts)


def _together(parts: Sequence[Verdict]) -> Verdict:
    """The verdict on several equations that all have to hold; the first that fails speaks."""
    facts = tuple(dict.fromkeys(f for p in parts for f in p.facts))
    obligations = tuple(o for p in parts for o in p.obligations)
    for part in parts:
        if part.status is not Status.PROVED:
            return replace(part, facts=facts, obligations=obligations)
    return Verdict(Status.PROVED, f"{len(obligations)} equations hold", facts, obligations=obligations)


def _timed(attempt: Callable[[], Verdict]) -> Verdict:
    start = time.perf_counter()
    try:
        verdict = attempt()
    except _Refused as problem:
        verdict = Verdict(Status.UNKNOWN, str(problem))
    verdict = replace(verdict, seconds=time.perf_counter() - start)
    _log.debug("%s in %.1f ms", verdict, 1e3 * verdict.seconds)
    return verdict


# ---------------------------------------------------------------------------------------- counterexamples


def _same(value: Expr) -> Expr:
    return value


def _full_tiles(value: Expr) -> Expr:
    """The special case of an expression over atoms in which tiles divide every axis, for evaluation.

    No position lies outside its axis, so the masks are 1 and 0, and an axis has as many positions as its cells,
    steps and lanes multiply to: eight. What differs only at other extents than a program's own counts as different,
    as a proof is for all sizes.
    """
    done: dict[Expr, Expr] = {}
    for node in walk([value]):
        match node.op:
            case Op.LEAF if node.name.startswith(VALID):
                done[node] = const(1)
            case Op.LEAF if node.name.startswith((PAD, ROOF)):
                done[node] = const(0)
            case Op.LEAF if node.name.startswith(POSITION):
                done[node] = _position(*map(_plain, node.axes))
            case Op.LEAF:
                done[node] = leaf(node.name, map(_plain, node.axes), finite=node.finite)
            case Op.EXTENT:
                atoms = (_plain(node.axis.atom(level)) for level in ("cell", "step", "lane"))
                done[node] = product(_count(a) for a in atoms)
            case op if op in REDUCTIONS:
                done[node] = make(op, (done[node.args[0]],), _plain(node.axis))
            case _:
                done[node] = make(node.op, tuple(done[a] for a in node.args), node.attr)
    return done[value]


def _plain(atom: Axis) -> Axis:
    """An atom as an axis of its own."""
    return replace(atom, name=f"{atom.name}_{atom.level}", level="", extent=2)


def _count(axis: Axis) -> Expr:
    return sum_over(axis, const(1))


def _position(cell: Axis, step: Axis, lane: Axis) -> Expr:
    tile = make(Op.INDEX, (), cell)
    steps = mul(tile, _count(step)) + make(Op.INDEX, (), step)
    return mul(steps, _count(lane)) + make(Op.INDEX, (), lane)
