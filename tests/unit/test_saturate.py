"""Saturation in its child process: limits, crashes, interrupts, determinism, termination."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import pytest

from rewrites.audit import audit
from rewrites.rules import RULES, Rule, Term, Variable
from rewrites.saturate import LARGEST_SUM, Limits, saturate, shut_down, warm_up
from rewrites.seeds import find_seeds
from rewrites.table import Table
from sgraph.axis import Axis, Size
from sgraph.errors import SaturationFailed
from sgraph.expr import (
    Expr,
    Op,
    add,
    const,
    exp,
    extent,
    leaf,
    max_over,
    maximum,
    mean_over,
    mul,
    product,
    recip,
    rsqrt,
    sqrt,
    sum_over,
)

m, k, n = Axis("m", Size("M")), Axis("k", 64), Axis("n", 32)
x, g, w = leaf("x", [m, k]), leaf("g", [k]), leaf("W", [k, n])
rmsnorm_linear = sum_over(k, x * rsqrt(mean_over(k, x * x) + const("1e-6")) * g * w)


def wide(factors: int) -> Expr:
    """A product whose table has about 3^factors nodes."""
    return sum_over(k, product(leaf(f"t{i}", [m, k] if i % 2 else [k]) for i in range(factors)))


def children() -> set[int]:
    me = os.getpid()
    return {int(pid) for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split()}


def gone(pid: int, within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def fingerprint(table: Table) -> str:
    free = [sorted(map(str, axes)) for axes in table.all_free]
    return hashlib.sha256(repr((table.roots, table.all_nodes, free, table.all_signs)).encode()).hexdigest()


# -------------------------------------------------------------------------------------------------- limits


def test_the_node_limit_gives_a_smaller_sound_table() -> None:
    whole = saturate([wide(6)])
    cut = saturate([wide(6)], limits=Limits(e_nodes=120))
    assert not whole.truncated
    assert cut.truncated
    assert cut.steps < whole.steps
    assert cut.e_nodes <= 120 < whole.e_nodes
    assert cut.lookup(wide(6)) == cut.roots[0]
    assert audit(cut).passed


def test_a_limit_below_the_program_itself_gives_the_program() -> None:
    table = saturate([rmsnorm_linear], limits=Limits(e_nodes=1))
    assert table.truncated
    assert table.steps == 0
    assert table.lookup(rmsnorm_linear) == 0
    assert table.lookup(sum_over(k, x * g * w)) is None


def test_the_time_limit_ends_the_run_with_a_table() -> None:
    begin = time.monotonic()
    table = saturate([wide(16)], limits=Limits(e_nodes=10**9, seconds=1.5))
    assert table.truncated
    assert table.lookup(wide(16)) == 0
    assert time.monotonic() - begin < 20


def test_running_out_of_memory_ends_in_the_step_before() -> None:
    table = saturate([wide(13)], limits=Limits(e_nodes=10**9, seconds=40, memory_bytes=80 << 20))
    assert table.truncated
    assert table.steps >= 1
    assert table.lookup(wide(13)) == 0


def broken_preamble(rules: Sequence[Rule]) -> str:
    return f"(sort T) (nonsense {len(rules)})"


def test_a_child_that_dies_before_any_table_is_an_error_and_the_next_call_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("rewrites.saturate.preamble", broken_preamble)
        with pytest.raises(SaturationFailed, match=r"its process ended with exit status 1 \(.*nonsense") as caught:
            saturate([rmsnorm_linear])
    assert "Limits" in caught.value.do
    assert not saturate([rmsnorm_linear]).truncated


def test_a_child_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shut_down()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SaturationFailed, match="did not start: its process ended with exit status 1"):
        saturate([rmsnorm_linear])


def test_too_many_axes_are_refused() -> None:
    reads = [leaf(f"t{i}", [Axis(f"a{i}", 2)]) for i in range(63)]
    with pytest.raises(SaturationFailed, match="uses 63 axes"):
        saturate([product(reads)])


# ------------------------------------------------------------------------------------------- child process


def test_one_child_serves_many_calls_and_ends_when_asked() -> None:
    shut_down()
    before = children()
    warm_up()
    (child,) = children() - before
    assert os.getsid(child) == child, "an interrupt at the terminal is for the parent alone"
    saturate([rmsnorm_linear])
    saturate([wide(4)])
    assert children() - before == {child}
    shut_down()
    assert gone(child)
    assert not saturate([rmsnorm_linear]).truncated


def test_a_warm_call_is_fast() -> None:
    saturate([rmsnorm_linear])
    assert min(saturate([rmsnorm_linear]).seconds for _ in range(5)) < 0.1


def test_a_killed_child_is_replaced() -> None:
    shut_down()
    before = children()
    warm_up()
    (child,) = children() - before
    os.kill(child, signal.SIGKILL)
    assert gone(child)
    assert saturate([rmsnorm_linear]).lookup(rmsnorm_linear) == 0


def test_a_child_that_dies_in_the_middle_leaves_the_table_before() -> None:
    shut_down()
    before = children()
    warm_up()
    (child,) = children() - before
    saturate([rmsnorm_linear])
    killer = threading.Timer(0.7, os.kill, (child, signal.SIGKILL))
    killer.start()
    table = saturate([wide(15)], limits=Limits(e_nodes=10**9, seconds=60, memory_bytes=2 << 30))
    killer.join()
    assert gone(child)
    assert table.truncated
    assert table.steps >= 1
    assert table.lookup(wide(15)) == 0
    assert audit(table, sample=500).passed


def interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_call_leaves_nothing_for_the_next_one() -> None:
    saturate([rmsnorm_linear])
    before = children()
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            saturate([wide(14)], limits=Limits(e_nodes=10**9, seconds=100))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert len(children()) == len(before) - 1
    assert saturate([rmsnorm_linear]).lookup(rmsnorm_linear) == 0


BUSY_PARENT = """
import os
from pathlib import Path
from tests.unit.test_saturate import wide
from rewrites.saturate import Limits, saturate, warm_up
warm_up()
print(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()[0], flush=True)
saturate([wide(14)], limits=Limits(e_nodes=10**9, seconds=100))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_parent_leaves_no_child_behind(how: signal.Signals) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", BUSY_PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(1.0)
        parent.send_signal(how)
        parent.wait(timeout=10)
    assert gone(child)


# --------------------------------------------------------------------------------------------------- rules


a, b = Variable("a"), Variable("b")


def test_a_rule_of_a_user_is_checked_and_used() -> None:
    u, v, w = leaf("u", [m]), leaf("v", [m]), leaf("w", [m])
    c = Variable("c")
    regrouped = Rule(
        "max2-assoc",
        Term(Op.MAX2, (a, Term(Op.MAX2, (b, c)))),
        Term(Op.MAX2, (Term(Op.MAX2, (a, b)), c)),
    )
    value, other = maximum(u, maximum(v, w)), maximum(maximum(u, v), w)
    assert saturate([value]).lookup(other) is None
    assert saturate([value], rules=[*RULES, regrouped]).lookup(other) == 0


def test_a_rule_of_a_user_that_is_one_of_ours_is_no_mistake() -> None:
    commuted = Rule("my-own", a + b, b + a)
    assert fingerprint(saturate([rmsnorm_linear], rules=[*RULES, commuted])) == fingerprint(saturate([rmsnorm_linear]))


def test_a_wrong_rule_of_a_user_is_refused() -> None:
    wrong = Rule("drop", a + b, a * b)
    with pytest.raises(SaturationFailed, match="rule drop is wrong"):
        saturate([rmsnorm_linear], rules=[*RULES, wrong])


def test_long_sums_keep_their_association() -> None:
    terms = [leaf(f"t{i}", [m]) for i in range(LARGEST_SUM + 6)]
    total = terms[0]
    for term in terms[1:]:
        total = add(total, term)
    table = saturate([total])
    assert not table.truncated
    assert table.classes == 2 * len(terms) - 1
    assert table.lookup(add(terms[-1], total.args[0])) == 0
    assert table.lookup(add(terms[1], terms[2])) is None


# ------------------------------------------------------------------------------- determinism, termination

PRINT_FINGERPRINTS = """
from tests.unit.test_saturate import tables
print(tables())
"""


def tables() -> list[str]:
    """Fingerprints of tables without and with seeds."""
    centred = x - mean_over(k, x)
    layernorm_linear = sum_over(k, centred * rsqrt(mean_over(k, centred * centred) + const("1e-6")) * g * w)
    seeded = find_seeds([layernorm_linear])
    assert seeded.seeds
    plain = [saturate([v]) for v in (rmsnorm_linear, wide(5), random_value(3))]
    return [fingerprint(t) for t in (*plain, saturate(seeded.values, seeded.pairs))]


def test_tables_are_the_same_in_every_process() -> None:
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PRINT_FINGERPRINTS],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        for seed in ("1", "2")
    ]
    printed = {process.communicate(timeout=100)[0] for process in processes}
    assert printed == {f"{tables()}\n"}


def random_value(seed: int) -> Expr:
    """A random expression of about twenty nodes over three axes."""
    chance = random.Random(seed)
    pool: list[Expr] = [x, g, w, leaf("v", [n]), const(2), const(-1), extent(k)]
    binary: tuple[Callable[[Expr, Expr], Expr], ...] = (mul, mul, add)
    unary: tuple[Callable[[Expr], Expr], ...] = (exp, lambda e: recip(exp(e)), lambda e: sqrt(e * e))
    reductions: tuple[Callable[[Axis, Expr], Expr], ...] = (sum_over, max_over)
    for _ in range(14):
        p, q, axis = chance.choice(pool), chance.choice(pool), chance.choice((k, n))
        made = (chance.choice(binary)(p, q), chance.choice(unary)(p), chance.choice(reductions)(axis, p))
        pool.append(chance.choices(made, weights=(4, 3, 2))[0])
    return max(pool[-4:], key=lambda e: len(e.free))


@pytest.mark.parametrize("seed", range(12))
def test_random_values_saturate_to_sound_tables(seed: int) -> None:
    value = random_value(seed)
    table = saturate([value], limits=Limits(e_nodes=20_000))
    assert table.lookup(value) == 0
    assert not table.truncated
    report = audit(table, seed, sample=1000)
    assert report.passed, report.disagreements[:3]
