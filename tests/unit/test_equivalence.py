"""Verdicts on pairs of expressions, what they carry, and the certificates written from them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sgraph.axis import Axis, Size
from sgraph.errors import InputError
from sgraph.expr import (
    Expr,
    Op,
    add,
    call,
    const,
    exp,
    extent,
    index,
    leaf,
    log,
    max_over,
    mean_over,
    mul,
    rebuild,
    recip,
    rename,
    rsqrt,
    sqrt,
    sum_over,
    walk,
)
from sgraph.ir import Kernel, Role, Store
from sgraph.program import DType, Output, Program, Tensor
from sgraph.schedule import Accumulate, Load, Loop, Phase, Schedule, Write
from verify import equivalence
from verify.certificate import Certificate, versions
from verify.denote import Written
from verify.equivalence import prove_equal, prove_kernel
from verify.numerics import Failure, NumericsReport, Round
from verify.verdict import Status, Verdict

M, K, N, R = (Axis(n, Size(n.upper())) for n in ("m", "k", "n", "r"))
X, W, G = leaf("x", [M, K]), leaf("W", [K, N]), leaf("g", [K])
A, B, S = leaf("A", [K, R]), leaf("B", [R, N]), leaf("s", [M])
POSITIVE = exp(leaf("p", [M]))

EQUAL: dict[str, tuple[Expr, Expr]] = {
    "row scale through a product": (sum_over(K, mul(mul(X, S), W)), mul(S, sum_over(K, mul(X, W)))),
    "associativity of products": (
        sum_over(R, mul(sum_over(K, mul(X, A)), B)),
        sum_over(K, mul(X, sum_over(R, mul(A, B)))),
    ),
    "variance of one pass": (
        mean_over(K, (X - mean_over(K, X)) * (X - mean_over(K, X))),
        mean_over(K, mul(X, X)) - mul(mean_over(K, X), mean_over(K, X)),
    ),
    "safe softmax": (
        mul(exp(X), recip(sum_over(K, exp(X)))),
        mul(exp(X - max_over(K, X)), recip(sum_over(K, exp(X - max_over(K, X))))),
    ),
    "sum of a constant": (sum_over(K, S), mul(extent(K), S)),
    "square root of a positive product": (sqrt(mul(POSITIVE, POSITIVE)), POSITIVE),
}

UNEQUAL: dict[str, tuple[Expr, Expr]] = {
    "channel scale through a product": (sum_over(K, mul(mul(X, G), W)), mul(leaf("g", [N]), sum_over(K, mul(X, W)))),
    "swapped operands of a quotient": (mul(S, recip(leaf("t", [M]))), mul(leaf("t", [M]), recip(S))),
    "function inside a sum": (
        sum_over(K, mul(call("silu", X), W)),
        call("silu", sum_over(K, mul(X, W))),
    ),
    "root of a square": (sqrt(mul(S, S)), S),
    "root of a product of negatives": (sqrt(mul(S, leaf("t", [M]))), mul(sqrt(S), sqrt(leaf("t", [M])))),
    "quotient by itself": (const(1), mul(S, recip(S))),
    "transposed weight": (
        sum_over(K, mul(X, leaf("v", [K, K.renamed(1)]))),
        sum_over(K, mul(X, leaf("v", [K.renamed(1), K]))),
    ),
    "maximum lost": (max_over(K, X), sum_over(K, X)),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_expressions_are_proved(name: str) -> None:
    verdict = prove_equal(*EQUAL[name])
    assert verdict.status is Status.PROVED, str(verdict)
    assert verdict.counterexample is None
    assert verdict.seconds > 0
    (obligation,) = verdict.obligations
    assert (obligation.spec, obligation.candidate) == EQUAL[name]


@pytest.mark.parametrize("name", UNEQUAL)
def test_unequal_expressions_are_refuted_with_numbers(name: str) -> None:
    verdict = prove_equal(*UNEQUAL[name])
    assert verdict.status is Status.REFUTED, str(verdict)
    assert verdict.counterexample
    assert "left is" in verdict.counterexample
    assert "refuted" in str(verdict)


def test_the_specification_may_be_defined_in_fewer_places_than_the_candidate() -> None:
    assert prove_equal(mul(S, recip(S)), const(1)).status is Status.PROVED
    assert prove_equal(const(1), mul(S, recip(S))).status is Status.REFUTED


def test_what_is_neither_proved_nor_refuted_is_unknown() -> None:
    # True, since log(2) + log(3) = log(6), and beyond the normal form.
    verdict = prove_equal(add(log(const(2)), log(const(3))), log(const(6)))
    assert verdict.status is not Status.REFUTED, str(verdict)
    opaque = prove_equal(call("mystery", S), call("mystery", mul(S, S)))
    assert opaque.status is Status.UNKNOWN
    assert "mystery" in opaque.reason


def test_facts_are_named() -> None:
    verdict = prove_equal(*EQUAL["safe softmax"])
    assert verdict.facts
    assert all(f"fact: {f}" in str(verdict) for f in verdict.facts)


def test_a_verdict_is_no_bool() -> None:
    for status in Status:
        with pytest.raises(TypeError, match=r"verdict\.status"):
            bool(Verdict(status, "because"))
    assert Status("proved") == "proved"


# ------------------------------------------------------------------- unequal over tiles only


def unequal_products() -> tuple[Kernel, Schedule, Program]:
    """A two-step sum whose inner sum is still partial where the outer one takes it up."""
    z = Tensor("z", (M, K, R), DType.FP32)
    inner = sum_over(R, z.read())
    outer = sum_over(K, mul(inner, mul(extent(K), index(K))))
    tensor = Tensor("y", (M,), DType.FP32)
    program = Program("f", (z,), (Output(tensor, outer),))
    roles = ((K, Role.LOOP), (M, Role.GRID), (R, Role.LOOP))
    kernel = Kernel("k0", (Store(tensor, outer, outer),), roles)
    body = (
        Loop(K, (outer,), (Loop(R, (inner,), (Load(z.read()), Accumulate((inner,)))), Accumulate((outer,)))),
        Write(tensor, outer),
    )
    return kernel, Schedule(kernel, (Phase("main", (M,), None, body),)), program


def test_extents_and_positions_agree_over_tiles() -> None:
    kernel, schedule, program = unequal_products()
    verdict = prove_kernel(kernel, schedule, program, {})
    assert verdict.status is Status.PROVED, str(verdict)


@pytest.mark.parametrize("fault", ["lanes", "steps", "mask"])
def test_statements_that_do_not_compute_what_they_name_are_refused(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # No schedule can say these: the denotation itself is made to leave something out of every sum.
    kernel, schedule, program = unequal_products()
    honest = equivalence.denote(schedule)[0]
    dropped = {"lanes": "lane", "steps": "step"}.get(fault)
    replacements = {
        node: (const(1) if dropped is None else rename(node.args[0], {node.axis: replace(node.axis, copy=5)}))
        for node in walk([honest.denoted])
        if (node.op is Op.LEAF and node.name == "valid:r" and dropped is None)
        or (node.op is Op.SUM and node.axis.name == "r" and node.axis.level == dropped)
    }
    broken = replace(honest, denoted=rebuild(honest.denoted, replacements))
    assert broken != honest

    def denotes(_: Schedule) -> tuple[Written, ...]:
        return (broken,)

    monkeypatch.setattr(equivalence, "denote", denotes)
    verdict = prove_kernel(kernel, schedule, program, {})
    # A missing mask shows in ragged tiles only, which no counterexample over full tiles can have.
    assert verdict.status is (Status.UNKNOWN if fault == "mask" else Status.REFUTED), str(verdict)
    assert "what it names and what it computes" in verdict.reason


# --------------------------------------------------------------------------------- certificates


def verdict_and_program() -> tuple[Program, Verdict]:
    spec, candidate = EQUAL["row scale through a product"]
    inputs = (Tensor("x", (M, K), DType.BF16), Tensor("W", (K, N), DType.BF16), Tensor("s", (M,), DType.BF16))
    program = Program("scaled", inputs, (Output(Tensor("y", (M, N), DType.BF16), spec),), facts=("a lifted constant",))
    return program, prove_equal(spec, candidate)


def test_a_certificate_survives_json() -> None:
    program, verdict = verdict_and_program()
    broken = Failure("y", "y[0] is nan", (0,), float("nan"), 1.0, 0.1)
    report = NumericsReport(
        "float32", (Round("huge", 3, {"m": 3}, float("inf"), broken), Round("tiny", 4, {}, 0.5, None))
    )
    certificate = Certificate.of(program, verdict, numerics=[report], rule_set="abc", seed=11)
    text = certificate.to_json()
    again = Certificate.from_json(text)
    assert again == certificate
    assert json.loads(text)["status"] == "proved"
    assert again.numerics[0].rounds[0].worst_ratio == float("inf")
    assert again.numerics[0].rounds[0].failure == "y[0] is nan"
    assert not again.numerics[0].passed
    assert again.facts[0] == "a lifted constant"
    assert (again.rule_set, again.seed, again.program) == ("abc", 11, "scaled")
    (equation,) = again.equations
    assert equation.normal_forms[0] == equation.normal_forms[1] != ""
    assert equation.spec_digest == verdict.obligations[0].spec.digest.hex()
    assert "s[m]" in equation.candidate
    assert {"python", "torch", "triton"} <= set(versions())
    assert again.versions == versions()


def test_long_normal_forms_are_hashed() -> None:
    wide = sum((leaf(f"tensor_number_{i}", [M]) for i in range(200)), const(1))
    program, _ = verdict_and_program()
    (equation,) = Certificate.of(program, prove_equal(wide, wide)).equations
    assert equation.normal_forms[0].startswith("blake2b:")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("", "{", "not JSON"),
        ("", "[]", "format None"),
        ('"format": 1', '"format": 99', "format 99 where 1 is read"),
        ('"status": "proved"', '"status": "certainly"', "status"),
        ('"seed": 0', '"sead": 0', "seed"),
    ],
)
def test_certificates_that_cannot_be_read_say_why(old: str, new: str, words: str) -> None:
    program, verdict = verdict_and_program()
    text = Certificate.of(program, verdict).to_json()
    spoilt = text.replace(old, new) if old else new
    assert spoilt != text
    with pytest.raises(InputError) as refusal:
        Certificate.from_json(spoilt, where="run/certificate.json")
    assert words in str(refusal.value)
    assert "run/certificate.json" in str(refusal.value)
    assert refusal.value.do


def test_an_rmsnorm_without_its_mean_is_refuted_at_every_size() -> None:
    eps = const("0.000001")
    right = mul(X, rsqrt(add(mean_over(K, mul(X, X)), eps)))
    wrong = mul(X, rsqrt(add(sum_over(K, mul(X, X)), eps)))
    assert prove_equal(right, wrong).status is Status.REFUTED
