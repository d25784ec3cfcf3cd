"""Mutation soak: emitted kernels with one mistake each, and whether the gates refuse them.

    python -m benchmarks.mutants --count N [--seed S] [--workload NAME ...] [--out FILE]

The texts are families of every workload: the generator's first, and the first with a split axis, with several
kernels, with a resident axis, and with loops alone. A mutant is *live* if it is seen to compute something else, or to
break a rule, when it is run in Triton's interpreter in float32 and compared with the program in double precision;
that is decided whatever the gates say. A live mutant that exact evaluation (gate 2) and the numerical contract (gate
3) both let pass is a hole. Others that pass are listed with the line they change. Every mutant is recorded as soon as
it is judged: Ctrl-C or a kill loses nothing but the last seconds, and the same command continues. The exit code is 1
if a live mutant is accepted.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import platform
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from autotune.interpreter import interpreted
from autotune.lower import lower
from autotune.module import load_source
from autotune.targets import find_target
from autotune.twin import small_config, small_sizes
from benchmarks.families import Searched, search_families, structures
from benchmarks.mutations import Mutant, mutants
from benchmarks.workloads import WORKLOADS
from prism.interpreted import interpret
from sgraph.border import parameters
from sgraph.errors import PrismError
from sgraph.evaluate import evaluate_program
from sgraph.generate import Family
from sgraph.program import DType
from verify.exact import check_exactly
from verify.inputs import make_inputs, resolve_sizes

TARGET: Final = "h200"
LIMIT_S: Final = 60
"""Longest one mutant may take; what takes longer is recorded as such and not counted as live."""
RELATIVE: Final = 1e-3
ABSOLUTE: Final = 1e-4
"""How far a float32 result may lie from the program's: a mutant beyond that computes something else."""
OUT: Final = Path("benchmarks/results/mutants.json")


@dataclass(frozen=True, slots=True)
class Text:
    """An emitted text that is mutated."""

    searched: Searched
    number: int
    """Of the family, from 1."""
    family: Family
    source: str

    @property
    def name(self) -> str:
        """What it is called in the record."""
        return f"{self.searched.workload.name}/{self.number}"

    @property
    def digest(self) -> str:
        """Of the text without its docstring, which states the version."""
        return hashlib.sha256(self.source.split('"""', 2)[2].encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of one mutant."""

    text: str
    digest: str
    index: int
    """Among the mutants of the text."""
    mutation: str
    line: int
    before: str
    after: str
    live: bool
    """Whether it is seen to be wrong."""
    refused_by: str
    """``exact``, ``contract``, ``time limit``, or nothing."""
    reason: str
    """Why it is refused."""


# ---------------------------------------------------------------------------------------------------- texts


def texts_of(searched: Searched) -> Iterator[Text]:
    """One text of each structure among the families of a workload."""
    for number, family in structures(searched.families).values():
        with contextlib.suppress(PrismError):
            yield Text(searched, number, family, lower(family.graph, family.schedules))


def all_texts(names: Sequence[str]) -> Iterator[Text]:
    """The texts of some workloads, or of all; what cannot be captured has none."""
    for name, workload in WORKLOADS.items():
        if not names or name in names:
            try:
                searched = search_families(workload, find_target(TARGET))
            except PrismError as error:
                print(f"{name}: {str(error).splitlines()[0]}", flush=True)
                continue
            if getattr(searched.found.program, "border", None) is None:
                yield from texts_of(searched)


# -------------------------------------------------------------------------------------------------- verdicts


def is_wrong(text: Text, source: str) -> bool:
    """Whether Triton's interpreter sees a stray access, or a result that is not the program's, in float32."""
    program = text.searched.found.program
    for seed, (sizes, config) in enumerate(_cases(text)):
        inputs = make_inputs(program, resolve_sizes(program, sizes), seed=seed, dtype=DType.FP32)
        expected = _expected(text, sizes, inputs, seed)
        if seed == 0:
            inputs = tuple(_spread(tensor, place + 2) for place, tensor in enumerate(inputs))
        try:
            module = load_source(source, "mutant")
            stated: Mapping[str, torch.dtype] = module.DTYPES
            single = {n: torch.float32 if d.is_floating_point else d for n, d in stated.items()}
            vars(module)["DTYPES"] = single
            with interpreted():
                results = module.launch(*inputs, config=config)
        except (KeyboardInterrupt, _TooLong):
            raise
        except Exception:  # whatever a mutant raises, it does not compute its program
            return True
        got = results if isinstance(results, tuple) else (results,)
        for result, wanted in zip(got, expected, strict=True):
            if result.shape != wanted.shape or not np.allclose(
                result.double().numpy(), wanted, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True
            ):
                return True
    return False


def _cases(text: Text) -> Iterator[tuple[dict[str, int], dict[str, dict[str, int]]]]:
    """Extents of which some are 1, ragged ones of several tiles, and extents that tiles divide."""
    ragged = small_sizes(text.searched.found.sizes, text.family.graph)
    names = sorted(ragged)
    for extents in ((17, 5, 1), None, (32, 16, 48)):
        wanted = dict(ragged)
        if extents is not None:
            wanted = {n: extents[i % 3] if ragged[n] > 3 else ragged[n] for i, n in enumerate(names)}
        try:
            sizes = resolve_sizes(text.searched.found.program, _within(text, wanted))
        except PrismError:
            continue  # a divisor
        yield sizes, small_config(text.family.graph, sizes)


def _within(text: Text, wanted: Mapping[str, int]) -> dict[str, int]:
    """Extents no larger than a constant one; one extent for one symbol."""
    symbols: dict[object, int] = {}
    found: dict[str, int] = {}
    for axis, real in text.searched.found.sizes.items():
        size = min(wanted[axis.name], real) if isinstance(axis.extent, int) else wanted[axis.name]
        found[axis.name] = size if isinstance(axis.extent, int) else symbols.setdefault(axis.extent, size)
    return found


def _spread(tensor: torch.Tensor, gap: int) -> torch.Tensor:
    """The same tensor with gaps between its elements."""
    room = torch.zeros((*tensor.shape, gap), dtype=tensor.dtype)
    room[..., 0] = tensor
    return room[..., 0]


_known: dict[tuple[str, int], list[Any]] = {}


def _expected(text: Text, sizes: Mapping[str, int], inputs: Sequence[torch.Tensor], seed: int) -> list[Any]:
    """What the program makes of the inputs of one case; worked out once for all mutants of a text."""
    key = (text.name, seed)
    if key not in _known:
        program = text.searched.found.program
        arrays = {t.name: i.double().numpy() for t, i in zip(parameters(program), inputs, strict=True)}
        with np.errstate(all="ignore"):
            _known[key] = list(evaluate_program(program, arrays).values())
    return _known[key]


class _TooLong(BaseException):
    """A mutant takes too long; no ``except Exception`` of the code under test may catch it."""


@contextlib.contextmanager
def _limited() -> Generator[None]:
    """Raise ``_TooLong`` in the block after ``LIMIT_S``."""

    def expired(number: int, frame: object) -> None:
        del number, frame
        raise _TooLong

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def judge(text: Text, index: int, mutant: Mutant, seed: int) -> Judged:
    """The gates' verdict on one mutant, and the judge's."""
    program = text.searched.found.program
    live, refused_by, reason = False, "", ""
    try:
        with _limited():
            exact = check_exactly(program, mutant.text, fields=False)
            if not exact.passed:
                refused_by, reason = "exact", str(exact)
            live = is_wrong(text, mutant.text)
            if exact.passed:
                reason = _contract(text, mutant.text, seed)
                refused_by = "contract" if reason else ""
    except _TooLong:
        refused_by, reason = "time limit", f"longer than {LIMIT_S} s"
    place = (mutant.mutation, mutant.line, mutant.before, mutant.after)
    return Judged(text.name, text.digest, index, *place, live, refused_by, " ".join(reason.split())[:200])


def _contract(text: Text, source: str, seed: int) -> str:
    """Why gate 3 refuses a text; empty if it does not."""
    try:
        reports = interpret(text.searched.workload.function, text.searched.found, text.family, source, seed)
    except Exception as error:  # a mutant may raise anything
        return f"{type(error).__name__}: {error}"
    return next((str(r) for r in reports if not r.passed), "")


# ------------------------------------------------------------------------------------------------- recording


def load_rows(out: Path, seed: int) -> list[Judged]:
    """What an earlier run with this seed has judged."""
    if not out.exists():
        return []
    earlier = json.loads(out.read_text())
    return [Judged(**row) for row in earlier["rows"]] if earlier.get("seed") == seed else []


def summary(rows: Sequence[Judged]) -> dict[str, object]:
    """The figures."""
    live = [r for r in rows if r.live]
    by_mutation = {
        name: {
            "live": sum(r.live for r in found),
            "refused_by_exact": sum(r.live and r.refused_by == "exact" for r in found),
            "refused_by_contract": sum(r.live and r.refused_by == "contract" for r in found),
            "accepted": sum(_accepted(r) for r in found),
            "no_difference_seen": sum(not r.live for r in found),
        }
        for name in sorted({r.mutation for r in rows})
        for found in [[r for r in rows if r.mutation == name]]
    }
    return {
        "mutants": len(rows),
        "live_mutants": len(live),
        "accepted": sum(map(_accepted, rows)),
        "no_difference_seen": len(rows) - len(live),
        "of_these_refused": sum(not r.live and bool(r.refused_by) for r in rows),
        "texts": len({r.text for r in rows}),
        "mutations": by_mutation,
    }


def _accepted(row: Judged) -> bool:
    return row.live and not row.refused_by


def write(out: Path, rows: Sequence[Judged], seed: int, command: str) -> None:
    """The record, in place of the last one at once."""
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "seed": seed,
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "triton", "numpy")}},
        "gpu": "none: exact evaluation and the interpreter",
        **summary(rows),
        "rows": [asdict(r) for r in rows],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(out)


def table(rows: Sequence[Judged]) -> Table:
    """One line per mutation."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("mutation")
    headings = ("live", "refused_by_exact", "refused_by_contract", "accepted", "no_difference_seen")
    for heading in headings:
        shown.add_column(heading.replace("_", " "), justify="right")
    counts: Any = summary(rows)["mutations"]
    for name, found in counts.items():
        shown.add_row(name, *(str(found[h]) for h in headings))
    return shown


def soak(texts: Sequence[Text], rows: list[Judged], arguments: argparse.Namespace, command: str) -> None:
    """Judge mutants of all texts in turn until there are enough live ones."""
    digests = {t.name: t.digest for t in texts}
    rows[:] = [r for r in rows if digests.get(r.text, r.digest) == r.digest]
    done = {(r.text, r.index) for r in rows}
    live = sum(r.live for r in rows)
    written = time.monotonic()
    streams = [mutants(t.source, arguments.seed) for t in texts]
    for index, turn in enumerate(zip_longest(*streams)):
        for text, mutant in zip(texts, turn, strict=True):
            if mutant is None or (text.name, index) in done:
                continue
            if live >= arguments.count:
                return
            row = judge(text, index, mutant, arguments.seed)
            rows.append(row)
            live += row.live
            if _accepted(row):
                print(f"ACCEPTED {row.text} {row.mutation} in line {row.line}: {row.before} => {row.after}", flush=True)
            if time.monotonic() - written > 20:
                written = time.monotonic()
                write(arguments.out, rows, arguments.seed, command)
                counts = Counter(bool(_accepted(r)) for r in rows)
                print(f"{len(rows)} mutants, {live} live, {counts[True]} accepted", flush=True)


def main() -> None:
    """Run the soak and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants", description="Mutation soak of the gates.")
    parser.add_argument("--count", type=int, default=100, help="live mutants to reach, those of earlier runs included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workload", nargs="+", default=[], choices=list(WORKLOADS), help="default: all")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    arguments = parser.parse_args()
    command = "python -m benchmarks.mutants " + " ".join(sys.argv[1:])
    rows = load_rows(arguments.out, arguments.seed)
    try:
        soak(list(all_texts(arguments.workload)), rows, arguments, command)
    except KeyboardInterrupt:
        print("stopped: what is judged is kept, the same command continues", flush=True)
    finally:
        write(arguments.out, rows, arguments.seed, command)
    Console(width=None if sys.stdout.isatty() else 110).print(table(rows))
    figures = summary(rows)
    print(f"{figures['live_mutants']} live mutants, {figures['accepted']} accepted")
    sys.exit(1 if figures["accepted"] else 0)


if __name__ == "__main__":
    main()
