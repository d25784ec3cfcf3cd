"""The library entry for measuring, with recorded times in the place of a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotune.measure import TWIN, measure
from autotune.measured import Launch


@dataclass(frozen=True)
class Figure:
    median_us: float
    spread_percent: float = 1.0


class Recorded:
    """Answers with given times; those it has none for cannot be run."""

    def __init__(self, **times: float) -> None:
        self.times = times

    def __call__(self, launches: Mapping[str, Launch]) -> tuple[dict[str, Figure], dict[str, str]]:
        known = {n: Figure(self.times["twin" if n == TWIN else n]) for n in launches if n in self.times or n == TWIN}
        return known, {n: "no kernel image" for n in launches if n not in known}


def nothing(*_: object) -> None:
    """A candidate that is never run."""


def test_a_difference_counts_above_twice_the_noise() -> None:
    found = measure({"eager": nothing, "mine": nothing}, [], timer=Recorded(eager=100, twin=104, mine=95))
    assert round(found.noise_percent, 6) == 4
    assert not found.faster("mine", "eager")
    found = measure({"eager": nothing, "mine": nothing}, [], timer=Recorded(eager=100, twin=101, mine=95))
    assert found.faster("mine", "eager") and not found.faster("eager", "mine")
    assert set(found.times) == {"eager", "mine"} and not found.alarms


def test_alarms() -> None:
    found = measure({"eager": nothing, "mine": nothing}, [], limit_us=8, timer=Recorded(eager=100, twin=100, mine=5))
    assert found.alarms == (
        "mine takes 5.00 us, 160 % of the speed of light",
        "mine is 20 times as fast as eager",
    )


def test_failures_are_reasons_and_without_a_reference_the_noise_is_unknown() -> None:
    found = measure({"eager": nothing, "mine": nothing}, [], timer=Recorded(twin=100, mine=5))
    assert found.failures == {"eager": "no kernel image"}
    assert found.noise_percent == float("inf") and not found.alarms
