"""What matrix products mean: sums of products over the labels that the result leaves out."""

from __future__ import annotations

from prism.frontend.call import Call, meaning
from prism.frontend.combine import Label, contract, elementwise, fold
from prism.frontend.values import Tensorial, permuted
from sgraph.expr import Expr, Op, const, mul


def matrix_product(call: Call, a: Tensorial, b: Tensorial) -> Tensorial:
    """``a @ b`` by the rules of ``torch.matmul``: vectors, matrices, broadcast batch dimensions."""
    left, right = _batch(a), _batch(b)
    rows: list[Label] = ["row"] if a.rank > 1 else []
    columns: list[Label] = ["column"] if b.rank > 1 else []
    labels = ([*left, *rows, "inner"], [*right, "inner", *columns])
    batch = left if len(left) >= len(right) else right
    return contract(call.axes, (a, b), labels, [*batch, *rows, *columns])


def _batch(value: Tensorial) -> list[Label]:
    """Labels of the batch dimensions, counted from the right so that they broadcast."""
    return list(range(max(value.rank - 2, 0), 0, -1))


def product_sum(call: Call, a: Tensorial, b: Tensorial, dimension: int) -> Tensorial:
    """The sum of the products of elements over one dimension."""
    product = elementwise(call.axes, mul, a, b)
    return fold(call.axes, product, (dimension,), Op.SUM, keep=False)


@meaning("matmul", "linalg_matmul")
def _matmul(call: Call) -> Tensorial:
    return matrix_product(call, call.tensor("self"), call.tensor("other"))


@meaning("mm", "bmm")
def _mm(call: Call) -> Tensorial:
    return matrix_product(call, call.tensor("self"), call.tensor("mat2"))


@meaning("tensordot")
def _tensordot(call: Call) -> Tensorial:
    a, b = call.tensor("self"), call.tensor("other")
    left, right = (call.dimensions(n, v.rank) for n, v in (("dims_self", a), ("dims_other", b)))
    inner: dict[int, Label] = {d: f"inner {i}" for i, d in enumerate(left)}
    names_a = [inner.get(d, f"a {d}") for d in range(a.rank)]
    other: dict[int, Label] = {d: f"inner {i}" for i, d in enumerate(right)}
    names_b = [other.get(d, f"b {d}") for d in range(b.rank)]
    kept = [n for n in (*names_a, *names_b) if not str(n).startswith("inner")]
    return contract(call.axes, (a, b), (names_a, names_b), kept)


@meaning("linalg_multi_dot", "chain_matmul")
def _multi_dot(call: Call) -> Tensorial:
    first, *others = (v.numeric() for v in call.stored_list("tensors" if call.has("tensors") else "matrices"))
    for other in others:
        first = matrix_product(call, first, other)
    return first


@meaning("mv")
def _mv(call: Call) -> Tensorial:
    return matrix_product(call, call.tensor("self"), call.tensor("vec"))


@meaning("dot", "vdot", "inner")
def _dot(call: Call) -> Tensorial:
    a, b = call.tensor("self"), call.tensor("tensor" if "tensor" in call.node.arguments else "other")
    if a.rank != 1 or b.rank != 1:
        call.refuse("only vectors are understood; use matmul")
    return matrix_product(call, a, b)


@meaning("outer", "ger")
def _outer(call: Call) -> Tensorial:
    return contract(call.axes, (call.tensor("self"), call.tensor("vec2")), ("i", "j"), ("i", "j"))


@meaning("addmv")
def _addmv(call: Call) -> Tensorial:
    return _added(call, matrix_product(call, call.tensor("mat"), call.tensor("vec")))


@meaning("addr")
def _addr(call: Call) -> Tensorial:
    return _added(call, contract(call.axes, (call.tensor("vec1"), call.tensor("vec2")), ("i", "j"), ("i", "j")))


@meaning("addmm", "baddbmm")
def _addmm(call: Call) -> Tensorial:
    first, second = ("mat1", "mat2") if "mat1" in call.node.arguments else ("batch1", "batch2")
    return _added(call, matrix_product(call, call.tensor(first), call.tensor(second)))


def _added(call: Call, result: Tensorial) -> Tensorial:
    """``beta * self + alpha * result``."""
    alpha, beta = call.number("alpha"), call.number("beta")

    def combine(bias: Expr, value: Expr) -> Expr:
        scaled = value if alpha is const(1) else mul(alpha, value)
        return (bias if beta is const(1) else mul(beta, bias)) + scaled

    return elementwise(call.axes, combine, call.tensor("self"), result)


@meaning("linear")
def _linear(call: Call) -> Tensorial:
    """``input @ weight.T + bias``."""
    weight = call.tensor("weight")
    result = matrix_product(call, call.tensor("input"), permuted(weight, range(weight.rank)[::-1]))
    bias = call.optional("bias")
    return result if bias is None else elementwise(call.axes, lambda x, b: x + b, result, bias)


@meaning("einsum")
def _einsum(call: Call) -> Tensorial:
    equation = str(call.node.arguments["equation"]).replace(" ", "")
    operands = [value.numeric() for value in call.stored_list("tensors")]
    inputs, arrow, result = equation.partition("->")
    terms = [_labels(term, value.rank) for term, value in zip(inputs.split(","), operands, strict=True)]
    if any(len(set(term)) < len(term) for term in terms):
        call.refuse("a diagonal is not understood")
    rest = sorted({label for term in terms for label in term if isinstance(label, int)}, reverse=True)
    if arrow:
        before, dots, after = result.partition("...")
        return contract(call.axes, operands, terms, [*before, *(rest if dots else []), *after])
    once = sorted(c for c in set(inputs) - {",", "."} if inputs.count(c) == 1)
    return contract(call.axes, operands, terms, [*rest, *once])


def _labels(term: str, rank: int) -> list[Label]:
    """The letters of one operand; the dimensions of an ellipsis are numbered from the right, so that they broadcast."""
    before, dots, after = term.partition("...")
    hidden = range(rank - len(before) - len(after), 0, -1) if dots else ()
    return [*before, *hidden, *after]
