"""``python -m benchmarks.render``: the recorded runs as ``benchmarks/results/README.md``, with one plot per run.

Nothing is run: every figure comes from a JSON file in ``benchmarks/results``. The latest run of each target and set
is shown. Geometric means are over rows where both sides ran; rows where we lose, or that failed, are shown.
"""

from __future__ import annotations

import html
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.runner import RESULTS, Row, Run, read

HEADER: Final = """# Recorded results

Written by `python -m benchmarks.render` from the JSON files beside it. A ratio is the fastest baseline's time over
that of our fastest plan, both from one interleaved run: above 1 ours is faster. What a caller gets is never slower than
the fastest baseline, because that is returned where nothing beats it. Baselines: eager, Inductor, Inductor with
max-autotune. *Modelled* times are not measurements.
"""
BAR: Final = 18
"""Height of a bar of the plot, with its gap, in pixels."""


def main() -> None:
    """Write the page and the plots."""
    runs = latest(recorded(RESULTS))
    parts = [HEADER]
    for name, run in runs.items():
        plot = RESULTS / f"{name}.svg"
        timed = [r for r in run.rows if r.ratio is not None]
        if timed:
            plot.write_text(svg(timed), encoding="utf-8")
        parts.append(section(name, run, plot.name if timed else None))
    (RESULTS / "README.md").write_text("\n".join(parts), encoding="utf-8")
    sys.stdout.write(f"{RESULTS / 'README.md'}: {len(runs)} runs\n")


def recorded(folder: Path) -> dict[str, Run]:
    """Runs by file name without its end; other JSON files are left alone."""
    found: dict[str, Run] = {}
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and {"format", "rows", "target", "load"} <= set(map(str, data)):
            found[path.stem] = read(path)
    return found


def latest(runs: dict[str, Run]) -> dict[str, Run]:
    """The last run of each target and set, as the file names say it."""
    newest: dict[tuple[str, ...], str] = {}
    for name, run in sorted(runs.items(), key=lambda item: item[1].date):
        newest[(run.target, name.split("-")[-1], str(run.threads))] = name
    return {name: runs[name] for name in sorted(newest.values())}


def section(name: str, run: Run, plot: str | None) -> str:
    """One run."""
    lines = [f"## {name}", "", f"`{run.command}`, {run.date}, on {run.device}, {run.threads} threads."]
    lines.append(
        f"Load average at the start: {run.load[0]:.1f}. " + ", ".join(f"{k} {v}" for k, v in run.versions.items())
    )
    timed = [r for r in run.rows if r.ratio is not None]
    if plot is not None:
        mean = geometric_mean([r.ratio or 1.0 for r in timed])
        returned = geometric_mean([r.returned or 1.0 for r in timed])
        lines += ["", f"![ratios]({plot})", ""]
        lines.append(f"Geometric mean over {len(timed)} rows: {mean:.2f}x ours, {returned:.2f}x returned.")
        losses = run.losses()
        lines.append(f"Rows where no plan of ours is faster: {len(losses)} of {len(timed)}.")
        lines += ["", *_timed_table(timed)]
    modelled = [r for r in run.rows if r.status == "modelled"]
    if modelled:
        lines += ["", "Modelled, not measured:", "", *_modelled_table(modelled)]
    failures = run.failures()
    if failures:
        lines += ["", "Failed or not run:", ""]
        lines += [f"- {r.workload} {_sizes(r)} {r.dtype}: {r.status}: {r.reason}" for r in failures]
    return "\n".join([*lines, ""])


def _timed_table(rows: Sequence[Row]) -> list[str]:
    head = [
        "workload",
        "sizes",
        "type",
        "ratio",
        "returned",
        "ours µs",
        "baseline µs",
        "fastest baseline",
        "limit",
        "winner",
    ]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for r in rows:
        limit = f"{r.limit_percent:.0f} %" if r.limit_percent is not None else ""
        returned = f"{r.returned:.2f}" if r.returned is not None else ""
        cells = [r.workload, _sizes(r), r.dtype, f"{r.ratio:.2f}", returned, f"{r.ours_us:.0f}", f"{r.baseline_us:.0f}"]
        lines.append(f"| {' | '.join([*cells, r.baseline, limit, r.winner])} |")
    return lines


def _modelled_table(rows: Sequence[Row]) -> list[str]:
    lines = ["| workload | sizes | type | modelled µs | of speed of light | families proved |", "|" + " --- |" * 6]
    for r in rows:
        limit = f"{r.limit_percent:.0f} %" if r.limit_percent is not None else ""
        proved = f"{r.proved} of {r.families}"
        lines.append(f"| {r.workload} | {_sizes(r)} | {r.dtype} | {r.modelled_us:.1f} | {limit} | {proved} |")
    return lines


def _sizes(row: Row) -> str:
    return " ".join(f"{k}={v}" for k, v in row.point.items())


def geometric_mean(values: Sequence[float]) -> float:
    """Of ratios."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else 1.0


def svg(rows: Sequence[Row]) -> str:
    """Ratios as bars with a line at 1; plain SVG, no fonts or scripts needed."""
    scale = 420 / max(2.0, *(r.ratio or 0.0 for r in rows))
    height = BAR * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}"',
        ' font-family="sans-serif" font-size="11">',
    ]
    parts.append('<rect width="100%" height="100%" fill="white"/>')
    for n, row in enumerate(rows):
        top, ratio = 10 + BAR * n, row.ratio or 0.0
        colour = "#2a7f62" if ratio >= 1 else "#b5523b"
        label = html.escape(f"{row.workload} {_sizes(row)} {row.dtype}")
        parts.append(f'<text x="255" y="{top + 11}" text-anchor="end">{label}</text>')
        parts.append(f'<rect x="260" y="{top}" width="{ratio * scale:.1f}" height="{BAR - 5}" fill="{colour}"/>')
        parts.append(f'<text x="{264 + ratio * scale:.1f}" y="{top + 11}">{ratio:.2f}x</text>')
    one = 260 + scale
    parts.append(
        f'<line x1="{one:.1f}" x2="{one:.1f}" y1="5" y2="{height - 18}" stroke="black" stroke-dasharray="3 3"/>'
    )
    parts.append(f'<text x="{one:.1f}" y="{height - 5}" text-anchor="middle">fastest baseline = 1</text></svg>')
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
