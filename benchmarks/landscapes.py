"""How few measurements the tuner needs: recorded and synthetic landscapes, replayed.

``python -m benchmarks.landscapes [--json]`` prints, for every landscape, the time of the best point found after n
measurements over the exhaustive optimum: the median over the seeds, beside random search over the valid points.
The constants of the search were chosen on these landscapes, with a few seeds; and what makes the synthetic ones rugged,
pairs of values, is what the search expects. Where every point had a factor of its own instead, an earlier version of
the search was 1 to 7 % above the optimum after 100 measurements.

``--record`` times a blocked matrix product on this processor at every point and writes the recording that is replayed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from autotune.cost import kernel_cost
from autotune.guided import Space, search
from autotune.landscape import Landscape, Replay, read_landscape, regret, synthetic
from autotune.parameters import KernelParameters, candidates
from autotune.resources import violated
from autotune.study import Dimension
from autotune.targets import find_target
from sgraph.axis import Axis
from sgraph.generate import Family
from sgraph.target import Target

RECORDED: Final = Path(__file__).parent / "results" / "landscapes"
AFTER: Final = (12, 25, 50, 100)
NOISE: Final = 0.015
"""Noise of a replayed measurement: times are only ever longer."""
RUGGEDNESS: Final = 0.08
MOST_POINTS: Final = 6000
"""Valid points of a synthetic landscape; larger spaces are sampled."""


@dataclass(frozen=True, slots=True)
class Row:
    """One landscape."""

    name: str
    origin: str
    points: int
    """Points that run."""
    failures: int
    """Points that do not."""
    ours: dict[str, float]
    """Median over seeds of found over optimal, by measurements."""
    random: dict[str, float]
    """The same of random search over the valid points."""
    wasted_percent: float
    """Measurements of points that do not run, or had been measured."""


def judge(landscape: Landscape, seeds: Iterable[int]) -> Row:
    """Our search and random search on one landscape."""
    found: dict[int, list[float]] = {n: [] for n in AFTER}
    chance: dict[int, list[float]] = {n: [] for n in AFTER}
    wasted: list[float] = []
    space = landscape.space()
    for seed in seeds:
        device = Replay(landscape, noise=NOISE, seed=seed)
        search(space, device.measure, trials=max(AFTER), seed=seed)
        wasted.append(100 * device.wasted / len(device.asked))
        drawn = random.Random(seed).sample(sorted(landscape.seconds), min(max(AFTER), len(landscape.seconds)))
        for n in AFTER:
            found[n].append(regret(landscape, device.asked, n))
            chance[n].append(regret(landscape, drawn, n))
    return Row(
        landscape.name,
        landscape.origin,
        len(landscape.seconds),
        len(landscape.failures),
        {str(n): statistics.median(v) for n, v in found.items()},
        {str(n): statistics.median(v) for n, v in chance.items()},
        statistics.mean(wasted),
    )


# ------------------------------------------------------------------------------------------- synthetic ones

WORKLOADS: Final = (
    ("rmsnorm_linear", {"M": 1}),
    ("rmsnorm_linear", {"M": 16}),
    ("gated_mlp", {"M": 64}),
    ("gqa_decode", {"B": 8, "L": 8192}),
    ("softmax", {"M": 4096, "k": 8192}),
)
"""Programs whose first kernel is searched, with their sizes."""


def synthetic_landscapes() -> list[Landscape]:
    """The cost model with other constants, on the largest kernel of the first family of some workloads."""
    return [_synthetic(name, sizes, seed) for seed, (name, sizes) in enumerate(WORKLOADS)]


def _synthetic(name: str, point: dict[str, int], seed: int) -> Landscape:
    family, sizes = first_family(name, point)
    target = find_target("h200")
    title = f"{name} {' '.join(f'{k}={v}' for k, v in point.items())}"
    schedule = max(family.schedules, key=lambda s: len(s.kernel.roles))
    return synthetic_landscape(title, family, family.schedules.index(schedule), sizes, target, seed)


def synthetic_landscape(
    name: str, family: Family, position: int, sizes: dict[Axis, int], target: Target, seed: int
) -> Landscape:
    """One kernel's landscape: the valid points, the model, and the model with other constants as the truth."""
    schedule = family.schedules[position]
    named = {a.name: n for a, n in sizes.items()}
    choices = candidates(schedule.kernel, named, target)
    dimensions = tuple(Dimension(n, c) for n, c in choices.items() if len(c) > 1)
    fixed = {n: c[0] for n, c in choices.items() if len(c) == 1}
    draw = random.Random(seed)
    names = [d.name for d in dimensions]
    parameters: dict[tuple[int, ...], KernelParameters] = {}
    for _ in range(4 * MOST_POINTS):
        at = tuple(draw.choice(d.choices) for d in dimensions)
        chosen = KernelParameters.from_config({**fixed, **dict(zip(names, at, strict=True))})
        if at not in parameters and violated(family.graph, schedule, chosen, named, target) is None:
            parameters[at] = chosen
        if len(parameters) == MOST_POINTS:
            break
    truth = _other_constants(target)

    def seconds(device: Target) -> Callable[[tuple[int, ...]], float]:
        return lambda at: kernel_cost(family.graph, schedule, parameters[at], device, sizes).total_s

    points = tuple(sorted(parameters))
    space = Space(dimensions, points, tuple(map(seconds(target), points)))
    return synthetic(space, name, seconds(truth), ruggedness=RUGGEDNESS, seed=seed)


def _other_constants(target: Target) -> Target:
    """A device that the model is wrong about: slower cache, longer latency, lower peaks, fewer registers."""
    return replace(
        target,
        dram_bytes_per_s=0.8 * target.dram_bytes_per_s,
        l2_bytes_per_s=0.6 * target.l2_bytes_per_s,
        memory_latency_s=1.7 * target.memory_latency_s,
        dot_flops_per_s={d: 0.6 * f for d, f in target.dot_flops_per_s.items()},
        pointwise_flops_per_s=0.5 * target.pointwise_flops_per_s,
        launch_s=1.6 * target.launch_s,
        registers=3 * target.registers // 4,
    )


def first_family(name: str, point: dict[str, int]) -> tuple[Family, dict[Axis, int]]:
    """The generator's first proved family of a workload for the h200, and its extents."""
    from benchmarks.workloads import WORKLOADS as PROGRAMS
    from prism.effort import effort
    from prism.pipeline import Request, captured, search
    from prism.progress import Progress
    from prism.settings import load

    workload = PROGRAMS[name]
    request = Request(workload.function, workload.inputs(point, device="meta"), name)
    program, sizes = captured(request)
    found = search(program, sizes, find_target("h200"), effort("quick"), load(), Progress(live=False))
    return found.proved[0].family, dict(found.sizes)


# ------------------------------------------------------------------------------------------------ recording


def record(path: Path) -> Landscape:
    """Time a blocked matrix product on this processor at every point; the fastest of several calls counts."""
    import torch

    m, n, k = 256, 512, 512
    dimensions = (
        Dimension("tile_m", (8, 16, 32, 64, 128, 256)),
        Dimension("tile_n", (16, 32, 64, 128, 256, 512)),
        Dimension("tile_k", (32, 64, 128, 256, 512)),
        Dimension("rows_first", (1, 2)),
    )
    torch.set_num_threads(1)
    x, w = torch.randn(m, k), torch.randn(k, n)
    out = torch.empty(m, n)

    def call(at: tuple[int, ...]) -> None:
        tile_m, tile_n, tile_k, order = at
        rows, columns = range(0, m, tile_m), range(0, n, tile_n)
        cells = [(i, j) for i in rows for j in columns] if order == 1 else [(i, j) for j in columns for i in rows]
        for i, j in cells:
            cell = torch.zeros(tile_m, tile_n)
            for start in range(0, k, tile_k):
                cell.addmm_(x[i : i + tile_m, start : start + tile_k], w[start : start + tile_k, j : j + tile_n])
            out[i : i + tile_m, j : j + tile_n] = cell

    points = [
        (a, b, c, d)
        for a in dimensions[0].choices
        for b in dimensions[1].choices
        for c in dimensions[2].choices
        for d in dimensions[3].choices
    ]
    best = dict.fromkeys(points, float("inf"))
    draw = random.Random(0)
    for _ in range(7):
        for at in draw.sample(points, len(points)):
            started = time.perf_counter()
            call(at)
            best[at] = min(best[at], time.perf_counter() - started)
    origin = (
        f"recorded on this project's 2-core CPU, one thread, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    )
    landscape = Landscape(f"blocked product {m}x{n}x{k}", origin, dimensions, best)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(landscape.to_json() + "\n", encoding="utf-8")
    return landscape


def recorded_landscapes() -> list[Landscape]:
    """Every recording of the repository."""
    return [read_landscape(p) for p in sorted(RECORDED.glob("*.json"))]


def main() -> None:
    """Judge the search on every landscape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--seeds", type=int, default=10, help="searches per landscape")
    parser.add_argument("--record", action="store_true", help="record the CPU landscape anew first")
    options = parser.parse_args()
    if options.record:
        record(RECORDED / "cpu_blocked_product.json")
    rows = [judge(x, range(options.seeds)) for x in (*recorded_landscapes(), *synthetic_landscapes())]
    if options.json:
        sys.stdout.write(json.dumps([asdict(r) for r in rows], indent=1) + "\n")
        return
    for row in rows:
        sys.stdout.write(f"{row.name}: {row.points} points run, {row.failures} do not; {row.origin}\n")
        for title, figures in (("ours", row.ours), ("random", row.random)):
            shown = "  ".join(f"@{n} {v:.3f}" for n, v in figures.items())
            sys.stdout.write(f"  {title:<7} {shown}\n")
        sys.stdout.write(f"  wasted {row.wasted_percent:.1f} % of the measurements\n")


if __name__ == "__main__":
    main()
