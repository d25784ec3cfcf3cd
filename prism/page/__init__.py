"""One search as one self-contained HTML page: no network, no scripts, readable on a phone, light and dark."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.targets import find_target
from prism.page.charts import funnel_chart, roofline, time_of, times_chart, tuning_chart
from prism.page.dataflow import kernel_blocks, plan_drawing, program_drawing
from prism.page.drawing import svg
from prism.report import Report
from prism.saved import SavedRun
from sgraph.bounds import speed_of_light
from sgraph.target import Target

if TYPE_CHECKING:
    import jinja2

SECTIONS = (
    ("before", "Before"),
    ("after", "After"),
    ("funnel", "Funnel"),
    ("candidates", "Candidates"),
    ("evidence", "Evidence"),
    ("source", "Source"),
    ("environment", "How it was made"),
)


def page(run: SavedRun) -> str:
    """The report of a saved run as HTML.

    Raises:
        UnknownTarget: the run is for a target that this machine does not know.
    """
    report, graph = run.report, run.graph
    target = find_target(report.target)
    sizes = run.sizes
    light = speed_of_light(graph, target, sizes) * 1e6 if graph is not None else None
    kernels = []
    if graph is not None:
        for i, kernel in enumerate(graph.kernels):
            chosen = run.parameters.get(f"kernel_{i}", {})
            shown = ", ".join(f"{name} {value}" for name, value in chosen.items())
            kernels.append(
                {
                    "name": kernel.name,
                    "fold": kernel.fold,
                    "blocks": kernel_blocks(kernel, chosen, sizes),
                    "parameters": shown,
                }
            )
    source = run.source or (run.torch_source if graph is not None else "")
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            report=report,
            certificate=run.certificate,
            sections=SECTIONS if run.certificate is not None else [s for s in SECTIONS if s[0] != "evidence"],
            headline=_headline(report),
            facts=_facts(report),
            winner=report.best.name if report.best is not None else "the original function",
            sizes_text=", ".join(f"{a}={n}" for a, n in sorted(sizes.items())),
            before=svg(program_drawing(run.program), f"Operations of {report.program}"),
            after=svg(plan_drawing(graph, sizes), "Kernels and the tensors between them") if graph is not None else "",
            kernels=kernels,
            funnel=funnel_chart(report.families, _tuned(report), _checked(report)),
            times=times_chart(report.ranking, light, report.best),
            light=f"{light:.3g}" if light is not None else "",
            roofline=roofline(report.ranking, _peak(target), target.dram_bytes_per_s, report.best),
            tuning=tuning_chart(report.best.tuning_us) if report.best is not None else "",
            source=_highlighted(source) if source else "",
            source_name="kernel.py" if run.source else "torch_form.py",
            torch_form=_highlighted(run.torch_source) if run.source and run.torch_source else "",
            highlight_css=_highlight_css(),
            number=_number,
            time_of=time_of,
        )
    )


def _headline(report: Report) -> str:
    best = report.best
    if best is None:
        return "Nothing was found that passed its checks; the original function runs."
    time = time_of(best)
    timed = f", {time:.3g} us {report.timing}" if time is not None else ""
    gain = f", {report.speedup:.2f} times as fast as the fastest baseline" if report.speedup is not None else ""
    if best.kind == "baseline":
        return f"{best.name} was the fastest and is what runs{timed}."
    kernels = "one kernel" if best.kernels == 1 else f"{best.kernels} kernels"
    return f"Best: {best.name} in {kernels}{timed}{gain}."


def _facts(report: Report) -> list[tuple[str, str, str]]:
    verdict, exact, accuracy = report.verdict, report.exact, report.accuracy
    facts = [("proof of the plan", verdict.status if verdict is not None else "none", _state(verdict, "proved"))]
    if exact is not None:
        facts.append(("exact evaluation of the text", *_passed(exact.passed)))
    if accuracy is not None:
        facts.append((f"numerical contract, {accuracy.where}", *_passed(accuracy.passed)))
    if report.best is not None and (time := time_of(report.best)) is not None:
        facts.append((f"{report.timing} time", f"{time:.3g} us", ""))
    if report.speedup is not None:
        facts.append(("over the fastest baseline", f"{report.speedup:.2f}x", ""))
    facts.append(("families listed and proved", f"{report.families.enumerated} / {report.families.proved}", ""))
    return facts


def _state(verdict: object, wanted: str) -> str:
    status = getattr(verdict, "status", "")
    return "passed" if status == wanted else "unknown"


def _passed(passed: bool) -> tuple[str, str]:
    return ("passed", "passed") if passed else ("failed", "failed")


def _tuned(report: Report) -> int:
    ended = {"measured", "modelled", "inaccurate", "check failed"}
    return sum(row.kind == "family" and row.status in ended for row in report.ranking)


def _checked(report: Report) -> int:
    checked = report.accuracy is not None and report.accuracy.passed
    failed = sum(row.status in {"inaccurate", "check failed"} for row in report.ranking)
    return int(checked) + failed


def _peak(target: Target) -> float:
    return max([target.pointwise_flops_per_s, *target.dot_flops_per_s.values()])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 1000 else f"{value:.0f}"


def _highlighted(source: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return highlight(source, PythonLexer(), HtmlFormatter(cssclass="code", linenos="inline"))


@cache
def _highlight_css() -> str:
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="default").get_style_defs(".code")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".code")
    ground = (
        ".code, .code pre { background: transparent !important; } .code .linenos { opacity: 0.5; padding-right: 12px; }"
    )
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n{ground}"


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, autoescape=True
    )
