"""How large the generator's space is: ``python -m benchmarks.generator`` prints one row per program.

Columns: e-nodes of the table, sets of stored tensors looked at, plans, distinct kernels with roles, families,
seconds of saturation and of generation; below each row what was set aside, by reason.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping

from rewrites.saturate import saturate, warm_up
from sgraph.axis import Axis
from sgraph.expr import call, const, exp, recip, sum_over
from sgraph.generate import SearchLimits, generate
from sgraph.program import Program
from tests.programs import H200, LARGE, PROGRAMS, program, rms, sizes_of, tensor


def rmsnorm_gated_mlp(extents: Mapping[str, int]) -> Program:
    """RMSNorm with gain, then both projections of a gated MLP."""
    m, k, n = (Axis(name, extents[name]) for name in "mkn")
    x, g = tensor("x", m, k), tensor("g", k)
    gate, up = tensor("Wg", k, n), tensor("Wu", k, n)
    normed = x.read() * rms(x.read(), k) * g.read()
    value = call("silu", sum_over(k, normed * gate.read())) * sum_over(k, normed * up.read())
    return program("rmsnorm_gated_mlp", (x, g, gate, up), (tensor("out", m, n), value))


def attention_projection(extents: Mapping[str, int]) -> Program:
    """Decoding attention of 16 sequences with 32 heads, then the output projection."""
    sizes = {"b": 16, "h": 32, "c": 128, "o": 4096, "j": extents["j"], "d": extents["d"]}
    b, h, c, o, j, d = (Axis(name, size) for name, size in sizes.items())
    q, k = tensor("q", b, h, d), tensor("k", b, j, h, d)
    v, w = tensor("v", b, j, h, c), tensor("Wo", h, c, o)
    weight = exp(const("1/8") * sum_over(d, q.read() * k.read()))
    heads = sum_over(j, weight * v.read()) * recip(sum_over(j, weight))
    return program("attention_projection", (q, k, v, w), (tensor("out", b, o), sum_over((h, c), heads * w.read())))


def layernorm_linear(extents: Mapping[str, int]) -> Program:
    """LayerNorm with gain and bias, then a projection."""
    m, k, n = (Axis(name, extents[name]) for name in "mkn")
    x, g, b, w = tensor("x", m, k), tensor("g", k), tensor("b", k), tensor("W", k, n)
    centred = x.read() - sum_over(k, x.read()) * const(f"1/{extents['k']}")
    value = sum_over(k, (centred * rms(centred, k) * g.read() + b.read()) * w.read())
    return program("layernorm_linear", (x, g, b, w), (tensor("out", m, n), value))


MEASURED: Mapping[str, Callable[[Mapping[str, int]], Program]] = {
    **PROGRAMS,
    "rmsnorm_gated_mlp": rmsnorm_gated_mlp,
    "attention_projection": attention_projection,
    "layernorm_linear": layernorm_linear,
}
"""Every program of the table."""

COLUMNS = {"e-nodes": 8, "cuts": 6, "plans": 7, "kernels": 9, "families": 10, "table s": 9, "search s": 10}
"""Titles and widths."""


def measured(p: Program) -> list[str]:
    """The lines of one program."""
    start = time.perf_counter()
    table = saturate([o.value for o in p.outputs])
    saturated = time.perf_counter()
    found = generate(p, table, H200, sizes_of(p), SearchLimits())
    done = time.perf_counter()
    counts = (table.e_nodes, found.cut_sets, found.plans, found.kernels, len(found.families))
    seconds = (f"{saturated - start:.2f}", f"{done - saturated:.2f}")
    cells = zip((*map(str, counts), *seconds), COLUMNS.values(), strict=True)
    first = f"{p.name:22}" + "".join(f"{cell:>{width}}" for cell, width in cells)
    return [first, *(f"    {count:>6}  {reason}" for reason, count in found.dropped.items())]


def main() -> None:
    """Print the table."""
    warm_up()
    sys.stdout.write(f"{'program':22}" + "".join(f"{title:>{width}}" for title, width in COLUMNS.items()) + "\n")
    for build in MEASURED.values():
        sys.stdout.write("\n".join(measured(build(LARGE))) + "\n")


if __name__ == "__main__":
    main()
