"""A report for people: tables for the terminal, and the same for a notebook."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from prism.report import Report, Row

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SHOWN_ROWS: Final = 12
WIDTH: Final = 118
"""Columns where the output is no terminal."""


def report_text(record: Report, width: int = WIDTH) -> str:
    """The report as plain text."""
    from rich.console import Console

    buffer = io.StringIO()
    show(record, Console(file=buffer, width=width, color_system=None))
    return buffer.getvalue()


def report_html(record: Report) -> str:
    """The report for a notebook, without network or scripts."""
    from rich.console import Console

    console = Console(record=True, width=WIDTH, file=io.StringIO())
    show(record, console)
    return console.export_html(inline_styles=True, code_format='<pre style="line-height:1.2">{code}</pre>')


def show(record: Report, console: Console) -> None:
    """Print the report on a console."""
    for part in _parts(record):
        if isinstance(part, str):
            console.print(part, highlight=False, markup=False, soft_wrap=True)
        else:
            console.print(part)


def _parts(record: Report) -> list[RenderableType]:
    parts: list[RenderableType] = [_headline(record), _ranking(record), _funnel(record)]
    if record.verdict is not None:
        parts.append(f"proof: {record.verdict.status} - {record.verdict.reason}")
        parts.extend(f"  uses the fact: {fact}" for fact in record.verdict.facts)
    if record.exact is not None:
        fields = ", ".join(f"field {name} {status}" for name, status in record.exact.fields.items())
        parts.append(f"exact evaluation of the text: agreed in {record.exact.evaluations} evaluations ({fields})")
    if record.accuracy is not None:
        kept = "kept" if record.accuracy.passed else "BROKEN"
        parts.append(
            f"numerical contract: {kept} in {record.accuracy.rounds} rounds ({record.accuracy.where}), "
            f"worst error {record.accuracy.worst:.2f} of its bound"
        )
    parts.extend(f"note: {note}" for note in record.notes)
    parts.append("seconds: " + ", ".join(f"{stage} {s:.1f}" for stage, s in record.seconds.items()))
    if record.source_path:
        parts.append(f"source: {record.source_path}")
    return parts


def _headline(record: Report) -> str:
    title = f"{record.program} on {record.target} (effort {record.effort}, times {record.timing})"
    best = record.best
    if best is None:
        return f"{title}: no family survived; see the funnel"
    time = best.measured_us if best.measured_us is not None else best.modelled_us
    shown = f"{time:.1f} us" if time is not None else best.status
    gain = f", {record.speedup:.2f}x the fastest baseline" if record.speedup is not None else ""
    return f"{title}\nbest: {best.name}, {shown}{gain}"


def _ranking(record: Report) -> RenderableType:
    from rich.table import Table

    table = Table(title="families and baselines, best first", title_justify="left", box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("kernels", justify="right")
    table.add_column("roles", max_width=44)
    table.add_column(f"{record.timing} us", justify="right", no_wrap=True)
    table.add_column("of limit", justify="right", no_wrap=True)
    table.add_column("bound us", justify="right")
    table.add_column("verdict")
    table.add_column("status", max_width=40)
    for row in record.ranking[:SHOWN_ROWS]:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    time = row.measured_us if row.measured_us is not None else row.modelled_us
    spread = f" +-{row.spread_percent:.0f}%" if row.spread_percent is not None else ""
    return (
        row.name,
        str(row.kernels) if row.kernels else "",
        "\n".join(_grouped(roles) for roles in row.roles),
        f"{time:.1f}{spread}" if time is not None else "-",
        f"{row.speed_of_light_percent:.0f} %" if row.speed_of_light_percent is not None else "-",
        f"{row.bound_us:.1f}" if row.bound_us is not None else "-",
        row.verdict,
        row.status + (f": {row.detail}" if row.detail else ""),
    )


def _grouped(roles: dict[str, str]) -> str:
    """Axes by role: ``grid m n, split k``."""
    axes: dict[str, list[str]] = {}
    for axis, role in roles.items():
        axes.setdefault(role, []).append(axis)
    return ", ".join(f"{role} {' '.join(names)}" for role, names in axes.items())


def _funnel(record: Report) -> RenderableType:
    from rich.table import Table

    families = record.families
    table = Table(title="what became of the candidates", title_justify="left", show_header=False, box=None)
    table.add_column("what")
    table.add_column("count", justify="right")
    table.add_row("families enumerated", str(families.enumerated))
    table.add_row("families proved", str(families.proved))
    for status, count in families.statuses.items():
        table.add_row(f"  {status}", str(count))
    for reason, count in families.dropped.items():
        table.add_row(f"set aside before: {reason}", str(count))
    return table
