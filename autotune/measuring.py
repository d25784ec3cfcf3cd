"""What a measuring process does: time and call one emitted source, away from the search.

``ProcessDevice`` is the device of a study whose launches may crash, hang or exhaust memory; ``FreshCall`` calls a
source in a process of its own, for the confirmation of a winner (gate 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from autotune.parameters import Parameters
from autotune.study import Rejected
from autotune.worker import Lost, Worker
from sgraph.errors import KernelCheckFailed

Kind = Literal["triton", "torch"]
Config = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Timed:
    """Ask for the time of a configuration; the answer is its seconds, or the reason as text."""

    config: Config | None


@dataclass(frozen=True, slots=True)
class Called:
    """Ask for the outputs on these inputs; the answer is a list of tensors on the CPU."""

    config: Config | None
    inputs: tuple[torch.Tensor, ...]


class Measuring:
    """The service: one source, loaded once; inputs are drawn in the process."""

    def __init__(
        self,
        source: str,
        name: str,
        kind: Kind,
        inputs: tuple[tuple[tuple[int, ...], str], ...],
        cache_bytes: int,
        device: int = 0,
    ) -> None:
        self.function = _loaded(source, name, kind)
        self.kind = kind
        self.cache_bytes = cache_bytes
        self.where = torch.device("cuda", device) if kind == "triton" else torch.device("cpu")
        if kind == "triton":
            torch.cuda.set_device(device)
        self.inputs = [_drawn(shape, dtype, n).to(self.where) for n, (shape, dtype) in enumerate(inputs)]

    def handle(self, request: Timed | Called) -> object:
        """Answer one request."""
        match request:
            case Called(config, inputs):
                result = self._launch(config)(*(t.to(self.where) for t in inputs))
                items: list[object] = list(result) if isinstance(result, tuple | list) else [result]
                return [t.cpu() for t in items if isinstance(t, torch.Tensor)]
            case Timed(config):
                return self._seconds(self._launch(config))

    def _launch(self, config: Config | None) -> Callable[..., object]:
        if self.kind == "torch":
            return self.function
        function = self.function
        return lambda *inputs: function(*inputs, config=config)

    def _seconds(self, launch: Callable[..., object]) -> float | str:
        if self.kind == "triton":
            from autotune.device import time_candidates

            times, failed = time_candidates({"it": launch}, self.inputs, self.cache_bytes)
            return times["it"].median_us * 1e-6 if "it" in times else failed["it"]
        from autotune.timing import compare

        compared = compare({"it": lambda: launch(*self.inputs)}, seconds=1.0, min_samples=5)
        row = compared.row("it")
        return row.median_us * 1e-6 if row is not None else compared.failures.get("it", "not timed")


def _loaded(source: str, name: str, kind: Kind) -> Callable[..., object]:
    if kind == "torch":
        from autotune.torch_printer import load_torch

        return load_torch(source)
    from autotune.module import load_source

    launch: Callable[..., object] = load_source(source, name).launch
    return launch


def _drawn(shape: tuple[int, ...], dtype: str, seed: int) -> torch.Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    random = torch.Generator().manual_seed(seed)
    if kind.is_floating_point:
        return torch.randn(shape, generator=random).to(kind)
    return torch.randint(0, 2, shape, generator=random).to(kind)


class ProcessDevice:
    """The device of a study: one measuring process, started anew after each loss. Close it when done."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def measure(self, parameters: Parameters) -> float | Rejected:
        """Seconds in the process; ``launch failed`` with its reason where the process is lost."""
        answer = self.worker.ask(Timed(parameters.to_config()))
        if isinstance(answer, Lost):
            return Rejected(f"launch failed: {answer.reason}")
        return answer if isinstance(answer, float) else Rejected(str(answer))


class FreshCall:
    """A source called in a fresh process: what is confirmed is the text, not what this process made of it."""

    def __init__(self, worker: Worker, config: Config | None = None) -> None:
        self.worker = worker
        self.config = config

    def __call__(self, *inputs: torch.Tensor) -> object:
        """The outputs, where the inputs lie.

        Raises:
            KernelCheckFailed: the process was lost.
        """
        answer = self.worker.ask(Called(self.config, tuple(t.detach().cpu() for t in inputs)))
        if isinstance(answer, Lost):
            raise KernelCheckFailed(f"a fresh process could not run it: {answer.reason}", where="confirmation")
        outputs = [t.to(inputs[0].device) for t in answer]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def measuring_worker(
    source: str, name: str, kind: Kind, inputs: Sequence[torch.Tensor], cache_bytes: int, *, limit_s: float = 60.0
) -> Worker:
    """A worker for a source; it is started by its first request."""
    shapes = tuple((tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in inputs)
    return Worker("autotune.measuring:Measuring", source, name, kind, shapes, cache_bytes, limit_s=limit_s)
