"""What matrix products mean: sums of products over the labels that the result leaves out."""

from __future__ import annotations

from collections.abc import Sequence

from prism.frontend.axes import Label, Value, contract, elementwise
from prism.frontend.call import Call, meaning
from sgraph.expr import Expr, const, mul


def matrix_product(call: Call, a: Value, b: Value) -> Value:
    """``a @ b`` by the rules of ``torch.matmul``: vectors, matrices, broadcast batch dimensions."""
    left, right = _batch(a), _batch(b)
    rows: list[Label] = ["row"] if len(a.dims) > 1 else []
    columns: list[Label] = ["column"] if len(b.dims) > 1 else []
    labels = ([*left, *rows, "inner"], [*right, "inner", *columns])
    batch = left if len(left) >= len(right) else right
    return contract(call.axes, (a, b), labels, [*batch, *rows, *columns])


def _batch(value: Value) -> list[Label]:
    """Labels of the batch dimensions, counted from the right so that they broadcast."""
    return list(range(max(len(value.dims) - 2, 0), 0, -1))


@meaning("matmul")
def _matmul(call: Call) -> Value:
    return matrix_product(call, call.tensor("self"), call.tensor("other"))


@meaning("mm", "bmm")
def _mm(call: Call) -> Value:
    return matrix_product(call, call.tensor("self"), call.tensor("mat2"))


@meaning("mv")
def _mv(call: Call) -> Value:
    return matrix_product(call, call.tensor("self"), call.tensor("vec"))


@meaning("dot", "vdot", "inner")
def _dot(call: Call) -> Value:
    a, b = call.tensor("self"), call.tensor("tensor" if "tensor" in call.node.arguments else "other")
    if len(a.dims) != 1 or len(b.dims) != 1:
        call.refuse("only vectors are understood; use matmul")
    return matrix_product(call, a, b)


@meaning("outer", "ger")
def _outer(call: Call) -> Value:
    return contract(call.axes, (call.tensor("self"), call.tensor("vec2")), ("i", "j"), ("i", "j"))


@meaning("addmm", "baddbmm")
def _addmm(call: Call) -> Value:
    first, second = ("mat1", "mat2") if "mat1" in call.node.arguments else ("batch1", "batch2")
    alpha, beta = call.number("alpha"), call.number("beta")
    result = matrix_product(call, call.tensor(first), call.tensor(second))

    def combine(bias: Expr, value: Expr) -> Expr:
        scaled = value if alpha is const(1) else mul(alpha, value)
        return (bias if beta is const(1) else mul(beta, bias)) + scaled

    return elementwise(call.axes, combine, call.tensor("self"), result)


@meaning("linear")
def _linear(call: Call) -> Value:
    """``input @ weight.T + bias``."""
    weight = call.tensor("weight")
    result = matrix_product(call, call.tensor("input"), Value(weight.dims[::-1], weight.expr))
    bias = call.optional("bias")
    return result if bias is None else elementwise(call.axes, lambda x, b: x + b, result, bias)


@meaning("einsum")
def _einsum(call: Call) -> Value:
    equation = str(call.node.arguments["equation"]).replace(" ", "")
    operands = call.tensors("tensors")
    if "." in equation:
        call.refuse("an ellipsis is not understood; name the dimensions")
    inputs, arrow, result = equation.partition("->")
    terms: Sequence[str] = inputs.split(",")
    if any(len(set(term)) < len(term) for term in terms):
        call.refuse("a diagonal is not understood")
    if not arrow:
        result = "".join(sorted(c for c in set(inputs) - {","} if inputs.count(c) == 1))
    return contract(call.axes, operands, terms, result)
