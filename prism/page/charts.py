"""Charts of a report as inline SVG: times with their bounds, roofline, funnel, tuning. Tables have every value too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from prism.report import Families, Row

WIDTH: Final = 720
LABEL: Final = 190
"""Room for names at the left."""
VALUE: Final = 90
"""Room for figures at the right."""
ROW: Final = 26
MOST_ROWS: Final = 24
"""Rows of the time chart; the table has them all."""


def time_of(row: Row) -> float | None:
    """Measured time, else modelled."""
    return row.measured_us if row.measured_us is not None else row.modelled_us


def times_chart(rows: Sequence[Row], light_us: float | None, best: Row | None) -> str:
    """One line per candidate on a logarithmic axis of microseconds: its bound, its time, and the speed of light."""
    timed = [(r, t) for r in rows if (t := time_of(r)) is not None and t > 0][:MOST_ROWS]
    if not timed:
        return ""
    values = [t for _, t in timed] + [r.bound_us for r, _ in timed if r.bound_us] + ([light_us] if light_us else [])
    height = ROW * len(timed) + 54
    floor = height - 40
    x = _Scale(min(values) / 1.15, max(values) * 1.15, LABEL, WIDTH - VALUE)
    parts: list[str] = []
    for tick in x.ticks():
        parts += [_line("grid", x(tick), 8, x(tick), floor), _text("axis", x(tick), floor + 16, _number(tick))]
    parts.append(_text("axis", (LABEL + WIDTH - VALUE) / 2, height - 6, "microseconds"))
    if light_us:
        parts.append(_line("light", x(light_us), 8, x(light_us), floor))
    for i, (row, time) in enumerate(timed):
        y = 20 + i * ROW
        kind = _kind(row, best)
        noise = f" ± {row.spread_percent:.1f} %" if row.spread_percent is not None else ""
        bound = row.bound_us
        parts.append(_text("name", LABEL - 10, y + 4, row.name, "end"))
        if bound and bound < time:
            parts.append(_line(f"span {kind}", x(bound), y, x(time), y))
            parts.append(_line("bound", x(bound), y - 6, x(bound), y + 6))
        tip = f"{row.name}: {time:.2f} us{noise}" + (f", bound {bound:.2f} us" if bound else "")
        parts.append(_dot(kind, x(time), y, tip))
        parts.append(_text("value", x(time) + 11, y + 4, f"{_number(time)}{noise}", "start"))
    return _svg(parts, height, "Time of every candidate, its lower bound, and the speed of light")


def roofline(rows: Sequence[Row], peak: float, bandwidth: float, best: Row | None) -> str:
    """Every candidate under the roof: operations per byte against operations per second.

    Args:
        rows: candidates; those without time, operations and bytes are left out.
        peak: operations per second of the busiest unit.
        bandwidth: bytes per second of the memory bus.
        best: drawn in its own colour.
    """
    points = [
        (r, r.flops / r.traffic_bytes, r.flops / t * 1e6)
        for r in rows
        if r.kind == "family" and (t := time_of(r)) and r.flops and r.traffic_bytes
    ]
    if not points:
        return ""
    height, left, floor = 330, 70, 286
    ridge = peak / bandwidth
    found = [ridge, *(intensity for _, intensity, _ in points)]
    x = _Scale(min(found) / 4, max(found) * 4, left, WIDTH - 20)
    y = _Scale(min(x.low * bandwidth, *(rate for _, _, rate in points)) / 2, peak * 2, floor, 14)
    parts: list[str] = []
    for tick in x.ticks():
        parts += [_line("grid", x(tick), 14, x(tick), floor), _text("axis", x(tick), floor + 18, _number(tick))]
    for tick in y.ticks():
        parts += [
            _line("grid", left, y(tick), WIDTH - 20, y(tick)),
            _text("axis", left - 8, y(tick) + 4, _rate(tick), "end"),
        ]
    start = max(x.low, y.low / bandwidth)
    roof = [(start, start * bandwidth), (ridge, peak), (x.high, peak)]
    parts.append(_path("roof", [(x(a), y(b)) for a, b in roof]))
    parts.append(_text("axis", (left + WIDTH) / 2, height - 6, "operations per byte"))
    for row, intensity, rate in points:
        tip = f"{row.name}: {intensity:.3g} operations per byte, {_rate(rate)} per second"
        parts.append(_dot(_kind(row, best), x(intensity), y(rate), tip))
    return _svg(parts, height, "Roofline: candidates under the limits of memory and arithmetic")


def funnel_chart(families: Families, tuned: int, checked: int) -> str:
    """How many families were listed, proved, tuned and checked."""
    steps = [("listed", families.enumerated), ("proved", families.proved), ("tuned", tuned), ("checked", checked)]
    most = max(1, *(n for _, n in steps))
    parts: list[str] = []
    for i, (name, count) in enumerate(steps):
        y = 8 + i * 34
        width = max(3.0, (WIDTH - LABEL - VALUE) * count / most)
        parts.append(_text("name", LABEL - 10, y + 17, name, "end"))
        parts.append(f'<rect class="bar" x="{LABEL}" y="{y}" width="{width:.1f}" height="24" rx="3"/>')
        parts.append(_text("value", LABEL + width + 8, y + 17, str(count), "start"))
    return _svg(parts, 8 + len(steps) * 34, "Families listed, proved, tuned and checked")


def tuning_chart(best_us: Sequence[float]) -> str:
    """Best time after each point that the tuner looked at."""
    if len(best_us) < 2:
        return ""
    height, left, floor = 220, 70, 176
    y = _Scale(min(best_us) / 1.1, max(best_us) * 1.1, floor, 14)
    step = (WIDTH - left - 20) / (len(best_us) - 1)
    parts: list[str] = []
    for tick in y.ticks():
        parts += [_line("grid", left, y(tick), WIDTH - 20, y(tick))]
        parts += [_text("axis", left - 8, y(tick) + 4, f"{_number(tick)} us", "end")]
    corners: list[tuple[float, float]] = []
    for i, value in enumerate(best_us):
        corners += [(left + i * step, y(best_us[max(i - 1, 0)])), (left + i * step, y(value))]
    parts.append(_path("curve", corners))
    parts.append(_text("axis", (left + WIDTH) / 2, height - 8, f"points looked at: {len(best_us)}"))
    return _svg(parts, height, "Best time after each point that the tuner looked at")


# ------------------------------------------------------------------------------------------------ pieces


@dataclass(frozen=True, slots=True)
class _Scale:
    """A logarithmic axis from one pixel to another."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        return self.first + (self.last - self.first) * math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten; only powers of ten where the range is wide; at most ten or so."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1,) if math.log10(self.high / self.low) > 2.5 else (1, 2, 5)
        ticks = [s * 10.0**d for d in decades for s in steps if self.low <= s * 10.0**d <= self.high]
        return ticks[:: max(1, math.ceil(len(ticks) / 10))]


def _kind(row: Row, best: Row | None) -> str:
    return "best" if best is not None and row.name == best.name else row.kind


def _text(kind: str, x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(kind: str, x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<line class="{kind}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def _path(kind: str, corners: Sequence[tuple[float, float]]) -> str:
    return f'<path class="{kind}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in corners)}"/>'


def _dot(kind: str, x: float, y: float, tip: str) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5.5"><title>{escape(tip)}</title></circle>'


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    body = "".join(parts)
    return f'<svg role="img" aria-label="{escape(title)}" {size}><title>{escape(title)}</title>{body}</svg>'


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _rate(value: float) -> str:
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
