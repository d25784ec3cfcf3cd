"""The front door: a function as one program if it is one, else its regions one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prism.options import Dynamic, ranges_of, sizes_of
from prism.progress import Progress
from sgraph.axis import Extent
from sgraph.errors import NoFeasibleFamily, SaturationFailed, UnsupportedOperator, UnsupportedProgram

if TYPE_CHECKING:
    from prism.partitioned import Partitioned
    from prism.result import Result

log = logging.getLogger("prism.search")


def open_door(  # noqa: PLR0913 - keyword arguments of one call, each with a default
    function: Callable[..., object],
    inputs: tuple[object, ...],
    *,
    target: str | None = None,
    effort: str = "default",
    sizes: Mapping[str, Sequence[Extent]] | None = None,
    dynamic: Dynamic | None = None,
    constant: Collection[str] = (),
    may_hold_minus_inf: Collection[str] = (),
    fallback: bool = True,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool | Progress = False,
    use_store: bool = True,
    name: str = "",
) -> Result | Partitioned:
    """See ``prism.superoptimize``."""
    import torch

    from prism.explanation import tensors_of
    from prism.pipeline import Request, run
    from prism.settings import load

    declared = sizes_of(function, inputs, dynamic, sizes)
    folder = Path(out) if out is not None else None
    if all(isinstance(x, torch.Tensor) for x in inputs) or not fallback:
        request = Request(
            function,
            tensors_of(inputs) if fallback else inputs,  # pyright: ignore[reportArgumentType] (capture says what is wrong)
            name,
            declared or None,
            target,
            effort,
            seed,
            folder,
            frozenset(constant),
            use_store=use_store,
            masks=frozenset(may_hold_minus_inf),
        )
        shown = Progress(live=progress) if isinstance(progress, bool) else progress
        try:
            with shown.shown():
                return run(request, load(), shown)
        except (UnsupportedOperator, UnsupportedProgram, NoFeasibleFamily, SaturationFailed) as problem:
            # Of a program that no kernel was found for, smaller regions may do, and the rest stays as it was.
            if not fallback:
                raise
            log.info("optimised region by region: %s", problem.seen)
    from autotune.targets import find_target
    from prism.backend import Options
    from prism.partitioned import partitioned

    if target:
        find_target(target)
    options = Options.of(
        {
            "target": target,
            "effort": effort,
            "seed": seed,
            "fallback": "eager",
            "out": folder,
            "progress": progress is True,
        }
    )
    return partitioned(function, inputs, options, ranges_of(function, inputs, declared))
