"""Both printers and the reader: what a person sees, and Python that rebuilds the identical object."""

from __future__ import annotations

import pytest

from sgraph.axis import Axis, Size
from sgraph.expr import (
    Expr,
    Op,
    call,
    const,
    exp,
    extent,
    index,
    leaf,
    log,
    make,
    max_over,
    maximum,
    mean_over,
    min_over,
    minimum,
    neg_inf,
    recip,
    rsqrt,
    sqrt,
    sum_over,
    where,
)
from sgraph.ir import Kernel, Role, SGraph, Store
from sgraph.printer import program_text, python, schedule_text, sgraph_text, text
from sgraph.program import DType, Output, Program, Tensor
from sgraph.reader import UnreadableText, read
from sgraph.stages import derive
from tests.programs import EPS, LARGE, PROGRAMS, SMALL, rmsnorm_linear, softmax

m, k, n = Axis("m", Size("M", 1, 64)), Axis("k", 4096), Axis("n", 6144)
x, w, g, s = leaf("x", (m, k)), leaf("W", (k, n)), leaf("g", (k,)), leaf("s", ())
less = make(Op.LT, (index(k), extent(k)))


# ------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("e", "expected"),
    [
        (
            sum_over(k, x * w) * rsqrt(sum_over(k, x * x) / extent(k) + EPS),
            "sum[k](x[m,k] * W[k,n]) * rsqrt(sum[k](x[m,k]^2) / |k| + 1/1000000)",
        ),
        (x - g, "x[m,k] - g[k]"),
        (x - (g + s), "x[m,k] - (g[k] + s)"),
        (x - (g - s), "x[m,k] - (g[k] - s)"),
        (x - 3, "x[m,k] - 3"),
        (const(0) - x, "0 - x[m,k]"),
        (-x, "-x[m,k]"),
        (-(x + g) * s, "-(x[m,k] + g[k]) * s"),
        (s * const("-1/3"), "-s * 1/3"),
        (const(2) * -s, "-2 * s"),
        (exp(-s), "exp(-s)"),
        (-s + g, "-s + g[k]"),
        (const(-5), "-5"),
        (const(-1) * const(-1), "1"),
        (x / g, "x[m,k] / g[k]"),
        (x / (g * s), "x[m,k] / (g[k] * s)"),
        (x / (g + s), "x[m,k] / (g[k] + s)"),
        (recip(s) * g, "g[k] / s"),
        (recip(s), "1 / s"),
        (recip(s * s), "1 / s^2"),
        (recip(recip(s)), "1 / (1 / s)"),
        (s / const("1/3"), "s / (1/3)"),
        (s * s * s, "s^3"),
        ((s + g) * (s + g), "(s + g[k])^2"),
        (sqrt(s) * sqrt(s), "sqrt(s)^2"),
        (rsqrt(s) * rsqrt(s) * g, "rsqrt(s)^2 * g[k]"),
        (log(exp(s)), "log(exp(s))"),
        (call("silu", sum_over(k, x * w)), "silu(sum[k](x[m,k] * W[k,n]))"),
        (sum_over((m, k), x), "sum[m,k](x[m,k])"),
        (max_over(m, sum_over(k, x)), "max[m](sum[k](x[m,k]))"),
        (min_over(k, g), "min[k](g[k])"),
        (maximum(s, minimum(g, -s)), "max(s, min(g[k], -s))"),
        (where(less, x, neg_inf()), "where(index(k) < |k|, x[m,k], -inf)"),
        (where(make(Op.EQ, (s + g, s)), s, g), "where(s + g[k] == s, s, g[k])"),
        (where(make(Op.LE, (s, g)), s, g), "where(s <= g[k], s, g[k])"),
        (leaf("h", (k, k.renamed(1))), "h[k,k#1]"),
        (exp(x - max_over(k, x)), "exp(x[m,k] - max[k](x[m,k]))"),
        (mean_over(k, x), "sum[k](x[m,k]) / |k|"),
        (const("1/8") * sum_over(k, x), "1/8 * sum[k](x[m,k])"),
    ],
    ids=str,
)
def test_expressions_read_as_people_write_them(e: Expr, expected: str) -> None:
    assert text(e) == expected == str(e)


def test_long_shared_expressions_name_what_they_share() -> None:
    e = s
    for _ in range(60):
        e = e * e + g
    lines = text(e).splitlines()
    assert lines[0] == "let e1 = s^2 + g[k]"
    assert lines[1] == "let e2 = e1^2 + g[k]"
    assert lines[-1] == "e59^2 + g[k]"
    assert len(lines) == 60


def test_let_names_avoid_tensor_names() -> None:
    e = leaf("e1", ())
    for _ in range(20):
        e = e * e + s
    assert text(e).startswith("let e2 = e1^2 + s\n")


def test_deep_expressions_print() -> None:
    e = s
    for _ in range(3000):
        e = exp(e)
    assert text(e).count("exp(") == 3000
    assert read(python(e)) is e


PROGRAM_TEXT = """\
program norm  (model.py:3)
  input   x[m,1,k] bf16
  input   W[k,n] bf16 constant
  input   mask[k] fp32 constant, may hold -inf
  output  out[m,n] fp32 = sum[k](x[m,k] * W[k,n])
  axis    k: 4096
  axis    m: M in 1..64
  axis    n: N in 16..512, multiple of 16
  fact    eps is 1/1000000"""


def test_programs_print_as_equations() -> None:
    wide = Axis("n", Size("N", 16, 512, 16))
    inputs = (
        Tensor("x", (m, None, k), DType.BF16),
        Tensor("W", (k, wide), DType.BF16, constant=True),
        Tensor("mask", (k,), DType.FP32, constant=True, finite=False),
    )
    value = sum_over(k, inputs[0].read() * inputs[1].read())
    output = Output(Tensor("out", (m, wide), DType.FP32), value)
    program = Program("norm", inputs, (output,), "model.py:3", ("eps is 1/1000000",))
    assert program_text(program) == PROGRAM_TEXT == str(program)
    assert read(python(program)) == program


def two_kernels() -> SGraph:
    program = softmax(LARGE)
    rows, inner = (Axis(a, LARGE[a]) for a in "mk")
    total = Tensor("total", (rows,), DType.FP32)
    a = program.inputs[0].read()
    summed = sum_over(inner, exp(a))
    first = Kernel("totals", (Store(total, summed, summed),), ((inner, Role.LOOP), (rows, Role.GRID)))
    out = program.outputs[0]
    second = Kernel("scale", (Store(out.tensor, exp(a) / total.read(), out.value),))
    return SGraph(program, (first, second))


SGRAPH_TEXT = """\
sgraph of softmax: 2 kernels
kernel totals: grid m; loop k
  reads   x
  stores  total[m] fp32 = sum[k](exp(x[m,k]))
kernel scale: roles undecided
  reads   x, total
  stores  out[m,k] bf16 = exp(x[m,k]) / total[m]"""


def test_sgraphs_print_on_one_screen() -> None:
    graph = two_kernels()
    assert sgraph_text(graph) == SGRAPH_TEXT == str(graph)
    assert read(python(graph)) == graph


def kernel_of(program: Program, **roles: Role) -> Kernel:
    bare = Kernel(program.name, tuple(Store(o.tensor, o.value, o.value) for o in program.outputs))
    return Kernel(bare.name, bare.stores, tuple((a, roles[a.name]) for a in bare.axes))


SOFTMAX_TEXT = """\
schedule of kernel softmax: grid m; loop k
main: for each tile of m
  v1 = -inf
  v2 = 0
  for each tile of k:
    load x[m,k]
    v1 max= max[k](x[m,k])
    v2 += sum[k](exp(x[m,k] - v1)), rescaled to the new v1
  v3 = 1 / v2
  for each tile of k:
    load x[m,k]
    v4 = x[m,k] - v1
    v5 = exp(v4)
    store out[m,k] = v3 * v5"""


def test_schedules_print_as_pseudo_code() -> None:
    assert schedule_text(derive(kernel_of(softmax(LARGE), m=Role.GRID, k=Role.LOOP))) == SOFTMAX_TEXT


def test_split_schedules_print_both_phases() -> None:
    shown = schedule_text(derive(kernel_of(PROGRAMS["linear"](LARGE), m=Role.GRID, n=Role.GRID, k=Role.SPLIT)))
    assert "main: for each tile of m, n, for each cell of k" in shown
    assert (
        "  store partial v1\ncombine: for each tile of m, n, over every cell of k\n  v1 = merged over the cells"
        in shown
    )


# ----------------------------------------------------------------------------------------------- python


@pytest.mark.parametrize("name", PROGRAMS)
def test_python_rebuilds_programs(name: str) -> None:
    program = PROGRAMS[name](SMALL)
    again = read(python(program))
    assert again == program and python(again) == python(program)


@pytest.mark.parametrize("build", [rmsnorm_linear, softmax], ids=["rmsnorm_linear", "softmax"])
def test_printed_python_runs(build: object) -> None:
    assert callable(build)
    program = build(LARGE)
    assert isinstance(program, Program)
    names: dict[str, object] = {}
    exec(python(program), names)
    assert names["result"] == program


def test_python_binds_shared_nodes_once() -> None:
    shared = exp(x)
    source = python(shared / sum_over(k, shared))
    assert source.count("exp(") == 1
    assert "result = exp_1 / sum_over(k, exp_1)" in source


@pytest.mark.parametrize(
    "e",
    [
        leaf("exp", (Axis("sum_over", 3), Axis("class", 4), Axis("Axis", 5))),
        leaf("2 odd-names", (Axis("k*2", 3), Axis('quo"te', 3), Axis("it's \\ \n", 3))),
        leaf("result", ()) + leaf("result", (k,)) * leaf("result", (k,)),
        leaf("M", (Axis("M", Size("M", 0, 5, 5)), Axis("N", Size("M", 0, 5, 5)))),
        leaf("a", (k, k.renamed(1), k.atom("cell"), k.renamed(2).atom("lane")), finite=False),
        make(Op.EXTENT, (), k.atom("step")) * extent(k) + index(k.atom("lane")),
        const(-3) + const("-22/7") * const(0),
        s - (s + g) - 3 * s - s / (g / s) * (s * (g * s)),
        (s + g) * -(s + g) / -(s + g) - rsqrt(s) * rsqrt(s) / sqrt(s),
        s + (g + (s + (g + s))),
        s + const(-1) * const(2) + const(-1) * (const(-1) * s),
        recip(sqrt(s)) + sqrt(s),
        where(less, where(make(Op.EQ, (s, g)), s, neg_inf()), min_over(k, maximum(g, minimum(s, g)))),
    ],
    ids=range(13),
)
def test_python_rebuilds_odd_expressions(e: Expr) -> None:
    assert read(python(e)) is e


# ----------------------------------------------------------------------------------------------- reader

HEAD = "from sgraph.axis import Axis\nfrom sgraph.expr import leaf\nk = Axis('k', 4)\n"


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("import os\n", "a Import statement"),
        ("from os import system\n", "system of os is not one of the constructors"),
        ("from sgraph.expr import rebuild\n", "rebuild of sgraph.expr is not one of the constructors"),
        ("from sgraph.expr import exp as log\n", "exp of sgraph.expr"),
        ("result = open('x')\n", "open is not one of the constructors"),
        ("result = __import__('os').system('true')\n", "a Call in __import__"),
        ("result = leaf.__globals__\n", "leaf.__globals__ is nothing that the text may name"),
        ("result = [leaf('x', ())]\n", "a List in"),
        ("result = (lambda: 1)()\n", "a Call in"),
        ("result = leaf(*('x', ()))\n", "a Starred in"),
        ("result = leaf(**{'tensor': 'x'})\n", r"a call with \*\*"),
        ("leaf('x', ())\n", "a Expr statement"),
        ("result = leaf('x', (missing,))\n", "the name missing is not bound"),
        ("leaf = 3\n", "leaf is bound already"),
        ("a = 1\na = 2\n", "a is bound already"),
        ("a = b = 1\n", "a Assign statement"),
        ("result = 2 + 3\n", "arithmetic between something else"),
        ("result = leaf('x', ()) ** leaf('x', ())\n", "a BinOp in"),
        ("result = leaf('x')\n", "leaf: missing a required argument"),
        ("result = leaf('x', (), 3)\n", "leaf: too many positional"),
        ("result = leaf('x', 3)\n", "leaf: axes cannot be a int"),
        ("result = leaf(3, ())\n", "leaf: tensor cannot be a int"),
        ("result = leaf('x', (k, k))\n", "leaf: these arguments do not go together"),
        ("result = leaf('x', (Axis('m', -1),))\n", "axis m has a negative extent"),
        ("result = leaf('x', (Axis('m', True),))\n", "Axis: extent cannot be a bool"),
        ("result = leaf('x', (Axis('m', 4, 0, 'warp'),))\n", "Axis: level cannot be a str"),
        ("result = const('1e999999999')\n", "the constant '1e999999999' is not written as"),
        ("result = const('1/0')\n", "a constant is divided by zero"),
        ("result = make(Op.ADD, (leaf('x', ()), leaf('x', ())))\n", "where a constructor is there for it"),
        ("result = make(Op.NOPE, ())\n", "Op.NOPE is nothing"),
        ("result = where(leaf('x', ()), leaf('x', ()), leaf('x', ()))\n", "where: these arguments do not go together"),
        ("result = Tensor('x', (k,), 'bfloat16')\n", "Tensor: dtype cannot be a str"),
        ("result = k\n", "the last line builds no expression"),
        ("", "the last line builds no expression"),
        ("result = (\n", "the text is no Python"),
        ("result = " + "-" * 100_000 + "1\n", "."),
        ("result = " + "leaf('x', ())" + " + leaf('x', ())" * 5_000 + "\n", "."),
        ("result = '\0'\n", "the text is no Python"),
    ],
)
def test_anything_else_is_refused(source: str, seen: str) -> None:
    with pytest.raises(UnreadableText, match=seen):
        read(HEAD + source if source else source)


def test_a_refusal_says_where_and_what_to_do() -> None:
    with pytest.raises(UnreadableText) as caught:
        read(HEAD + "result = eval('1')\n")
    assert caught.value.where == "line 4"
    assert "sgraph.printer.python" in caught.value.do
