"""The HTML report: complete, self-contained, safe against what it shows."""

from __future__ import annotations

import dataclasses
import html.parser
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import prism
from prism.cli import app
from prism.page import page
from prism.page.charts import roofline, times_chart, tuning_chart
from prism.page.dataflow import bytes_text, program_drawing
from prism.page.drawing import Drawing, Edge, Node, svg
from prism.report import Row
from prism.saved import SavedRun, read_run
from sgraph.axis import Axis
from sgraph.errors import RunNotFound
from sgraph.expr import const, exp, leaf, maximum, sum_over
from sgraph.program import DType, Output, Program, Tensor


def gated(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(x @ a) * (x @ b)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "gated"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRISM_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        tensors = (torch.randn(8, 64), torch.randn(64, 48), torch.randn(64, 48))
        prism.superoptimize(gated, *tensors, target="h200", effort="quick", out=path)
    return path


@pytest.fixture(scope="module")
def run(folder: Path) -> SavedRun:
    return read_run(folder)


@pytest.fixture(scope="module")
def text(run: SavedRun) -> str:
    return page(run)


class _Reader(html.parser.HTMLParser):
    """Tags that are open, ids, links and everything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in {"meta", "link", "br", "hr", "img", "input"}:
            self.open.append(tag)
        self.ids += [v for k, v in attrs if k == "id" and v]
        if tag == "a":
            self.links.append(values.get("href") or "")
        self.fetched += [v for k, v in attrs if v and (k == "src" or (k == "href" and tag == "link"))]
        assert tag != "script"

    def handle_endtag(self, tag: str) -> None:
        if tag in {"rect", "line", "circle", "path"} and self.open[-1] != tag:
            return
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        self.words += data


def parsed(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_a_page_is_whole_and_fetches_nothing(text: str) -> None:
    reader = parsed(text)
    assert reader.fetched == ["data:,"]
    assert {link.removeprefix("#") for link in reader.links} <= set(reader.ids)
    assert "url(" not in text
    assert "@import" not in text
    assert len(reader.ids) == len(set(reader.ids))


def test_every_part_of_the_search_is_there(text: str, run: SavedRun) -> None:
    words = re.sub(r"\s+", " ", parsed(text).words)
    assert run.certificate is not None
    for equation in run.certificate.equations:
        assert re.sub(r"\s+", " ", equation.candidate) in words
    for row in run.report.ranking:
        assert row.name in words
    for reason in (*run.report.families.statuses, *run.report.families.dropped):
        assert re.sub(r"\s+", " ", reason) in words
    assert "@triton.jit" in words
    assert "for each tile of" in words
    for name in ("x", "a", "b", "out"):
        assert re.search(rf"\b{name}\[", words)


def test_names_cannot_inject(run: SavedRun) -> None:
    evil = "<script>alert(1)</script>"
    report = run.report.model_copy(update={"program": evil, "notes": [evil], "equations": evil})
    text = page(dataclasses.replace(run, report=report))
    assert evil not in text
    assert "&lt;script&gt;" in text


def test_a_baseline_that_won_has_a_page_too(run: SavedRun) -> None:
    best = Row(name="eager", kind="baseline", status="measured", measured_us=3.0, spread_percent=0.4)
    report = run.report.model_copy(update={"best": best, "ranking": [best], "speedup": None, "verdict": None})
    text = page(dataclasses.replace(run, report=report, graph=None, certificate=None, source="", torch_source=""))
    assert "eager was the fastest" in parsed(text).words
    assert "± 0.4 %" in text


def test_drawings_place_every_box_and_no_two_on_each_other() -> None:
    nodes = [Node(i, (f"node {i}",), "operation") for i in range(7)]
    edges = [Edge(0, 2), Edge(1, 2), Edge(2, 3), Edge(3, 4), Edge(0, 4, "8 KB"), Edge(4, 5), Edge(1, 6)]
    text = svg(Drawing(tuple(nodes), tuple(edges)), "a & b")
    boxes = [
        tuple(map(float, m))
        for m in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', text)
    ]
    assert len(boxes) == len(nodes)
    for i, (x, y, w, h) in enumerate(boxes):
        for u, v, p, q in boxes[:i]:
            assert x >= u + p or u >= x + w or y >= v + q or v >= y + h
    assert text.count("<path") == len(edges)
    assert "a &amp; b" in text


def test_operations_are_drawn_with_their_constants() -> None:
    m, k = Axis("m", 4), Axis("k", 8)
    x, y = leaf("x", (m, k)), leaf("y", (m,))
    value = sum_over(k, exp(maximum(x, const(2))) * const("1/1000000")) + y + const(3)
    tensors = (Tensor("x", (m, k), DType.FP32), Tensor("y", (m,), DType.FP32))
    drawn = program_drawing(Program("p", tensors, (Output(Tensor("out", (m,), DType.FP32), value),)))
    labels = {line for node in drawn.nodes for line in node.lines}
    assert {"x[m,k]", "y[m]", "exp", "max", "sum[k]", "out[m]"} <= labels
    assert any("1e-06" in label for label in labels)
    assert any(label.startswith("· + ") and "3" in label for label in labels)


def test_charts_of_nothing_are_empty() -> None:
    row = Row(name="family 1", kind="family", status="deferred")
    assert times_chart([row], None, None) == ""
    assert roofline([row], 1e12, 1e9, None) == ""
    assert tuning_chart([]) == ""


def test_one_candidate_is_a_chart() -> None:
    row = Row(
        name="family 1", kind="family", status="modelled", modelled_us=4.0, bound_us=2.0, flops=1e9, traffic_bytes=1e6
    )
    assert "family 1: 4.00 us, bound 2.00 us" in times_chart([row], 1.0, row)
    assert "1e+03 operations per byte, 250 T per second" in roofline([row], 1e15, 4e12, row)
    assert tuning_chart([5.0, 4.0, 4.0]).count("<path") == 1


@pytest.mark.parametrize(("count", "text"), [(12, "12 B"), (4096, "4.1 KB"), (2.5e6, "2.5 MB"), (3e12, "3e+03 GB")])
def test_bytes(count: float, text: str) -> None:
    assert bytes_text(count) == text


def test_the_command(folder: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    out = tmp_path / "page.html"
    assert runner.invoke(app, ["report", str(folder), "--out", str(out)]).exit_code == 0
    assert out.read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(RunNotFound):
        runner.invoke(app, ["report", str(tmp_path / "none")], catch_exceptions=False)
