"""Random small torch programs: what is captured is what torch computes, what is proved is equal, what is wrong is not.

A program is a few lines of text, drawn by a seed from a table of operators over tensors whose dimensions are often
equally long, so that a mix-up of dimensions keeps the shape and shows in the numbers only. The long run is marked
slow; ``FUZZ_FIRST`` and ``FUZZ_COUNT`` in the environment choose other seeds.
"""

from __future__ import annotations

import linecache
import os
import random
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, cast
from zlib import crc32

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import prism
from prism.frontend import capture
from sgraph.border import parameters
from sgraph.errors import PrismError
from sgraph.evaluate import evaluate_program
from verify.verdict import Status

FIRST: Final = int(os.environ.get("FUZZ_FIRST", "1000"))
COUNT: Final = int(os.environ.get("FUZZ_COUNT", "400"))
EXTENTS: Final = (1, 2, 2, 3, 3, 4, 4, 6)
NUMBERS: Final = ("0.5", "1.0", "0.25", "2.0", "-0.5", "0.1", "1e-5", "3.0")
KINDS: Final = ("normal", "whole", "large", "positive")

# A and B are operands, D a dimension, K whether it is kept, C a number, W a small one.
OPERATORS: Final = (
    *("F.relu(A)", "F.silu(A)", "F.gelu(A)", "torch.tanh(A)", "torch.exp(A.clamp(max=3))", "A.square()", "A.abs()"),
    *("torch.sqrt(A.square() + 0.5)", "F.softplus(A)", "F.hardtanh(A, -C, 0.75)", "F.leaky_relu(A, 0.1)"),
    *("F.elu(A, C)", "F.softshrink(A, 0.5)", "A.clamp(-0.5, C)", "A.clamp_min(C)", "1 / (A.abs() + 0.5)"),
    *("A * C", "A + C", "C - A", "A / 2.0", "A + B", "A - B", "A * B", "A / (B.abs() + 0.5)", "A.float().double()"),
    *("torch.maximum(A, B)", "torch.minimum(A, B)", "torch.lerp(A, B, 0.3)", "torch.where(A < B, A, C)"),
    *("torch.where(A <= B, B, A)", "A.masked_fill(B > C, 0.5)", "(A >= B) * A", "torch.clamp(A, min=B)"),
    *("torch.where((A > 0) & (B > C), A, B)", "torch.where((A > C) | ~(B >= 0), A, B)"),
    *("A.sum(D, keepdim=K)", "A.mean(D, keepdim=K)", "A.amax(D, keepdim=K)", "A.amin(D, keepdim=K)", "A.sum()"),
    *("A.var(D, correction=0, keepdim=K)", "torch.logsumexp(A, D, keepdim=K)", "A.norm(dim=D, keepdim=K)"),
    *("torch.where((A > C).all(D, keepdim=True), A, -A)", "torch.where((A > C).any(D, keepdim=True), A, -A)"),
    *("torch.softmax(A, D)", "F.log_softmax(A, D)", "F.normalize(A, dim=D)", "A - A.mean(D, keepdim=True)"),
    *("A.transpose(D, 0)", "A.unsqueeze(D)", "A.squeeze(D)", "A.flatten(0, 1)", "A.flatten()", "A.select(D, -1)"),
    *("A.narrow(D, 0, 1)", "A.mT", "A.repeat_interleave(2, dim=D)", "torch.cat((-A, A), D)", "torch.stack((A, -A), D)"),
    *(
        "A.chunk(2, D)[0]",
        "A.chunk(2, D)[-1]",
        "torch.cat((-A.chunk(2, D)[1], A.chunk(2, D)[0]), D)",
        "A.movedim(0, -1)",
    ),
    *("A.unflatten(D, (2, -1))", "A.tril()", "A.triu(1)", "A[None]", "A.unbind(D)[-1]"),
    *("torch.softmax(A.masked_fill(torch.ones_like(A, dtype=torch.bool).triu(1), -torch.inf), -1)",),
    *("torch.softmax(A.masked_fill(torch.arange(A.shape[-1]) > W, -torch.inf), -1)", "A * torch.arange(A.shape[-1])"),
    *("torch.where(torch.arange(A.shape[-1]) <= W, A, 0).sum(-1)", "F.layer_norm(A, A.shape[-1:], eps=0.5)"),
    *("F.rms_norm(A, A.shape[-1:], eps=0.5)", "F.group_norm(A, A.shape[1])", "A @ B", "A @ B.mT", "F.linear(A, B)"),
    *("torch.einsum('ij,jk->ik', A, B)", "torch.einsum('...i,...i->...', A, B)", "torch.einsum('bij,bkj->bik', A, B)"),
    *("F.scaled_dot_product_attention(A, B, B)", "F.scaled_dot_product_attention(A, B, B, is_causal=True)"),
    *("F.mse_loss(A, B)", "F.huber_loss(A, B, reduction='none')", "F.cosine_similarity(A, B, dim=D)"),
    *("torch.cat((A, B), D).sum(D)", "torch.cat((A, B), D).softmax(D)", "torch.cat((A, B), D).amax(D)"),
)
CHANGES: Final = (
    *(("<=", "<"), (">=", ">"), ("< ", "<= "), ("> ", ">= "), ("amax", "amin"), ("maximum", "minimum"), ("&", "|")),
    *((".sum(", ".mean("), ("triu(1)", "triu(0)"), ("tril()", "tril(-1)"), ("softmax", "log_softmax"), (" + ", " - ")),
    *((" - ", " + "), (" * ", " + "), ("relu(", "silu("), ("all(", "any("), ("any(", "all("), ("chunk(2", "chunk(1")),
    *(
        ("is_causal=True", "is_causal=False"),
        ("rms_norm", "layer_norm"),
        ("0.5", "0.25"),
        ("-1", "0"),
        ("keepdim=True", "keepdim=False"),
    ),
    *(
        ("logsumexp", "amax"),
        (".square()", ".abs()"),
        ("-A", "A"),
        ("'none'", "'mean'"),
        ("0.3", "0.4"),
        ("2.0", "2.5"),
    ),
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A program as text."""

    shapes: tuple[tuple[int, ...], ...]
    lines: tuple[str, ...]
    """``v0 = ...``; the last is the result."""

    def __str__(self) -> str:
        names = ", ".join(f"x{i}" for i in range(len(self.shapes)))
        result = self.lines[-1].split(" = ")[0]
        return "\n    ".join([f"def f({names}):  # {self.shapes}", *self.lines, f"return {result}"]) + "\n"

    @property
    def function(self) -> Callable[..., Tensor]:
        """The program as a function that has a source."""
        text = str(self)
        file = f"<fuzzed {crc32(text.encode())}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        names: dict[str, object] = {"torch": torch, "F": functional}
        exec(compile(text, file, "exec"), names)
        return cast("Callable[..., Tensor]", names["f"])

    def inputs(self, seed: int, kind: str = "normal") -> list[Tensor]:
        """Inputs in float64: of a normal distribution, integers (so that some are equal), large, or positive ones."""
        source = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(s, generator=source, dtype=torch.float64) for s in self.shapes]
        change: dict[str, Callable[[Tensor], Tensor]] = {
            "whole": lambda t: (t * 2).round(),
            "large": lambda t: t * 4,
            "positive": lambda t: t.abs() + 0.1,
        }
        return [change.get(kind, torch.clone)(t) for t in drawn]


def drawn(seed: int, most: int = 6) -> Drawn:
    """A program that runs and stays finite; the same for the same seed."""
    choose = random.Random(seed)
    extents = [choose.choice(EXTENTS) for _ in range(3)]
    shapes = [tuple(choose.choice(extents) for _ in range(choose.choice((1, 2, 2, 3, 3, 4))))]
    shapes += [choose.choice((shapes[0], shapes[0][-2:], shapes[0][:1]))] * choose.choice((0, 1, 1))
    program = Drawn(tuple(shapes), ())
    values: dict[str, Tensor] = {f"x{i}": x for i, x in enumerate(program.inputs(seed))}
    for _ in range(60):
        if len(program.lines) == most:
            break
        a, b = (choose.choice([*values, *list(values)[-2:]]) for _ in range(2))
        text = filled(choose.choice(OPERATORS), choose, a, b, max(values[a].ndim, 1))
        try:
            value = eval(text, {"torch": torch, "F": functional}, dict(values))
        except (RuntimeError, ValueError, IndexError):
            continue
        if not value.is_floating_point() or value.numel() > 500 or value.ndim > 5 or not value.isfinite().all():
            continue
        name = f"v{len(program.lines)}"
        values[name] = value
        program = replace(program, lines=(*program.lines, f"{name} = {text}"))
    return needed(program) if program.lines else drawn(seed + 1_000_000, most)


def filled(template: str, choose: random.Random, a: str, b: str, rank: int) -> str:
    place = choose.randrange(-rank, rank)
    values = {"A": a, "B": b, "D": str(place), "K": choose.choice(("True", "False"))}
    values |= {"C": choose.choice(NUMBERS), "W": choose.choice("012")}
    return re.sub(r"\b[ABDKCW]\b", lambda m: values[m.group()], template)


def needed(program: Drawn) -> Drawn:
    """Without lines that the result does not need."""
    wanted, kept = {program.lines[-1].split(" = ")[0]}, list[str]()
    for line in reversed(program.lines):
        name, text = line.split(" = ", 1)
        if name in wanted:
            wanted |= set(re.findall(r"\bv\d+\b", text))
            kept.insert(0, line)
    return replace(program, lines=tuple(kept))


def changed(program: Drawn, choose: random.Random) -> Iterator[Drawn]:
    """The program with one line written otherwise, which may or may not compute the same."""
    for _ in range(2):
        number = choose.randrange(len(program.lines))
        name, text = program.lines[number].split(" = ", 1)
        for old, new in choose.sample(CHANGES, len(CHANGES)):
            if old in text:
                line = f"{name} = {text.replace(old, new, 1)}"
                yield replace(program, lines=(*program.lines[:number], line, *program.lines[number + 1 :]))
                break


def check_capture(program: Drawn, seed: int) -> bool:
    """Whether it is captured; what is, has the shape and the numbers of torch."""
    function = program.function
    try:
        found = capture(function, program.inputs(seed))
    except PrismError as refused:
        assert refused.seen
        return False
    for kind in KINDS:
        inputs = program.inputs(seed + 1, kind)
        near = function(*(x * (1 + 1e-9) for x in inputs)).double().numpy()
        wanted = function(*inputs).double().numpy()
        (got,) = evaluate_program(
            found, {t.name: x.numpy() for t, x in zip(parameters(found), inputs, strict=True)}
        ).values()
        assert got.shape == wanted.shape, str(program)
        with np.errstate(all="ignore"):
            # Where a threshold is met by rounding alone, torch itself jumps.
            steady = np.isfinite(wanted) & np.isfinite(got) & (np.abs(near - wanted) <= 1e-5 * (1 + np.abs(wanted)))
            wrong = steady & (np.abs(got - wanted) > 2e-6 * (1 + np.abs(wanted)))
        assert not wrong.any(), f"{kind}: {got[wrong][:1]} for {wanted[wrong][:1]}\n{program}"
    return True


def differ(program: Drawn, other: Drawn, seed: int) -> bool:
    """Whether two programs clearly compute different numbers where the first computes any."""
    for number in range(2 * len(KINDS)):
        inputs = program.inputs(seed + number, KINDS[number % len(KINDS)])
        a, b = program.function(*inputs).double(), other.function(*inputs).double()
        if a.shape != b.shape:
            return True
        if bool((a.isfinite() & b.isfinite() & ((a - b).abs() > 1e-4 * (1 + a.abs()))).any()):
            return True
    return False


def check_proofs(program: Drawn, seed: int) -> None:
    """No changed program that differs is proved to be the same."""
    for other in changed(program, random.Random(seed)):
        try:
            different = differ(program, other, seed)
        except (RuntimeError, IndexError, ValueError, TypeError, SyntaxError):
            continue  # torch does not take what was changed
        try:
            verdict = prism.prove(program.function, other.function, *program.inputs(seed))
        except PrismError as refused:
            assert refused.seen
            continue
        assert not (different and verdict.status is Status.PROVED), f"{program}\nis not\n{other}"


def check(seed: int) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = drawn(seed)
        if not check_capture(program, seed):
            return False
        assert prism.prove(program.function, program.function, *program.inputs(seed)).status is Status.PROVED
        check_proofs(program, seed)
    return True


def test_a_sample_of_programs_means_what_torch_computes_and_only_equal_ones_are_proved() -> None:
    captured = [check(seed) for seed in range(9)]
    assert sum(captured) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_many_programs(part: int) -> None:
    each = max(COUNT // 8, 1)
    first = FIRST + part * each
    captured = [check(seed) for seed in range(first, first + each)]
    assert sum(captured) >= each // 2
