"""How much of the layers of known model families is captured: ``python -m benchmarks.coverage_models``.

Every family of ``benchmarks.hf_models`` is traced, divided into regions, and called again with the regions stitched
in, each as it was written. Nothing is searched: the table says what a search would get, and that dividing changes no
bit of the result. ``--out docs/coverage_models.md`` writes the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch.fx import GraphModule

from benchmarks.hf_models import FAMILIES, model
from prism.partition import Divided, divide
from prism.stitching import Observing, stitched

HEAD = """# Model families

Two layers of each family, built from the `transformers` library ({version}) with random weights and small sizes
(`benchmarks/hf_models.py`), called under `torch.no_grad()` through Dynamo. *Operators* counts what Dynamo traced,
embedding and mask preparation included; *in regions* how many of them a search would optimise; *searches* how many
different regions there are; *same bits* whether the stitched graph, every region as it was written, gives the bits
that the model gives. Written by `python -m benchmarks.coverage_models --out docs/coverage_models.md`; nothing was
searched or timed for it.

| family | operators | in regions | regions | searches | same bits | left to torch |
| --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What became of one family."""

    family: str
    """Its name in ``transformers``."""
    operators: int
    """Operators that Dynamo traced."""
    covered: int
    """Of those, operators in regions."""
    regions: int
    """Regions."""
    searches: int
    """Different ones."""
    same: bool
    """Whether the stitched graphs gave the same bits."""
    cuts: tuple[str, ...]
    """Operators left to torch."""

    def row(self) -> str:
        """As a line of the table."""
        share = f"{self.covered} ({100 * self.covered // max(self.operators, 1)} %)"
        cuts = ", ".join(f"`{c}`" for c in self.cuts) or "nothing"
        same = "yes" if self.same else "NO"
        return f"| {self.family} | {self.operators} | {share} | {self.regions} | {self.searches} | {same} | {cuts} |"


class Stitching:
    """A backend that divides every graph and puts its regions back as they were."""

    def __init__(self) -> None:
        self.found: list[Divided] = []

    def __call__(self, graph: GraphModule, inputs: Sequence[object]) -> object:
        """Take one graph, as Dynamo asks."""
        stitched_graph: list[GraphModule] = []

        def run(*given: object) -> object:
            if stitched_graph:
                return stitched_graph[0](*given)
            divided = divide(graph, given)
            self.found.append(divided)
            watched = Observing(divided)
            answer = cast("object", watched.run(*given))
            own = {region.name: code.function(region.name) for region, code in divided.parts}
            layouts = {name: seen.outputs for name, seen in watched.seen.items()}
            stitched_graph.append(stitched(divided, own, layouts))
            return answer

        return run


def cover(family: str) -> Coverage:
    """Trace, divide, stitch and compare one family."""
    torch.compiler.reset()
    function, inputs = model(family)
    backend = Stitching()
    compiled = torch.compile(function, backend=backend, dynamic=False)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        expected = function(*inputs)
        same = all(torch.equal(compiled(*inputs), expected) for _ in range(2))
    partitions = [d.partition for d in backend.found]
    regions = [r for p in partitions for r in p.regions]
    return Coverage(
        family,
        sum(p.operators for p in partitions),
        sum(p.covered for p in partitions),
        len(regions),
        len({r.key for r in regions}),
        same,
        tuple(sorted({c.operator for p in partitions for c in p.cuts})),
    )


def main() -> None:
    """Print or write the table."""
    import transformers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="file to write; the table is printed otherwise")
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    arguments = parser.parse_args()
    rows = [cover(family).row() for family in arguments.families]
    text = HEAD.format(version=transformers.__version__) + "\n".join(rows) + "\n"
    if arguments.out is not None:
        arguments.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
