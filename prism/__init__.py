"""Prism: a symbolic superoptimizer for tensor programs.

    import prism

    fast = prism.superoptimize(fn, *example_inputs)
    y = fast(*inputs)          # in place of fn(*inputs)
    print(fast.report())

    print(prism.prove(fn, rewritten, *example_inputs))

Importing this package imports neither torch nor any of the engines; they come at first use.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

    from prism.result import Result
    from sgraph.axis import Extent
    from verify.verdict import Verdict

__version__: Final = "0.1.0"

__all__ = ["PrismError", "__version__", "load", "prove", "superoptimize"]


def _check_neighbours() -> None:
    """The five packages have common names: make sure that the ones found are ours."""
    home = Path(__file__).resolve().parent.parent
    for name in ("sgraph", "rewrites", "verify", "autotune"):
        found = importlib.util.find_spec(name)
        origin = Path(found.origin).resolve() if found is not None and found.origin else None
        if origin is None or origin.parent.parent != home:
            raise ImportError(
                f"Prism needs its package {name!r} beside {home / 'prism'}, but Python finds {origin or 'nothing'}; "
                f"rename that file or package, or change the order of sys.path"
            )


_check_neighbours()

from sgraph.errors import PrismError  # noqa: E402 (only after the check that it is ours)


def superoptimize(  # noqa: PLR0913 (one keyword per question a caller may have)
    function: Callable[..., object],
    *inputs: torch.Tensor,
    target: str | None = None,
    effort: str = "default",
    sizes: Mapping[str, Sequence[Extent]] | None = None,
    constant: Collection[str] = (),
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = False,
    use_store: bool = True,
) -> Result:
    """Find the fastest equal of a torch function, with the reason to believe that it is equal.

    Args:
        function: a function of tensors that returns a tensor or a tuple of them.
        inputs: example tensors, one per parameter; their shapes are the ones tuned for.
        target: ``cpu``, ``a100``, ``h100``, ``h200`` or ``b200``; the GPU if there is one, else the CPU.
        effort: ``quick``, ``default`` or ``max``.
        sizes: for a parameter, the size of each dimension, an ``sgraph.axis.Size`` where it is known only at
            call time.
        constant: parameters whose contents stay the same between calls (weights).
        seed: of every random choice; the same seed gives the same families in the same order.
        out: folder for sources, report and certificate; one under the cache directory by default.
        progress: whether to show a live line on a terminal.
        use_store: whether an earlier result of the same search may be returned, and this one is kept.

    Returns:
        A callable with ``.source``, ``.verdict``, ``.report()``, ``.speedup`` and ``.save()``.

    Raises:
        PrismError: one of its subclasses (module ``sgraph.errors``) for everything a user can mend.
    """
    from prism.pipeline import Request, run
    from prism.progress import Progress
    from prism.settings import load

    folder = Path(out) if out is not None else None
    request = Request(function, inputs, "", sizes, target, effort, seed, folder, frozenset(constant), use_store)
    shown = Progress(live=progress)
    with shown.shown():
        return run(request, load(), shown)


def prove(
    f: Callable[..., object],
    g: Callable[..., object],
    *inputs: torch.Tensor,
    sizes: Mapping[str, Sequence[Extent]] | None = None,
    constant: Collection[str] = (),
    may_hold_minus_inf: Collection[str] = (),
) -> Verdict:
    """Whether ``g`` is defined and computes the same wherever ``f`` is defined, over the real numbers.

    Args:
        f: the specification, a function of tensors or a module, which is its inputs and then its parameters.
        g: what is to be proved equal to it; takes the same inputs by position.
        inputs: example tensors, for their shapes and types only.
        sizes: for a parameter of ``f``, the size of each dimension, an ``sgraph.axis.Size`` where the verdict has to
            hold for a range of them.
        constant: parameters of ``f`` whose contents stay the same between calls.
        may_hold_minus_inf: parameters of ``f`` that are additive masks; all others are finite.

    Returns:
        A verdict with ``.status`` (``"proved"``, ``"refuted"`` or ``"unknown"``), ``.reason``, ``.facts`` that the
        proof used, ``.counterexample`` (of a refutation: Python text with the numbers; *left* is ``f``) and
        ``.seconds``. It has no truth value.

    Raises:
        PrismError: one of the functions does not take the inputs or cannot be captured, or their results differ in
            number, size or element type.
    """
    from prism.proving import prove as prove_functions

    return prove_functions(f, g, inputs, sizes=sizes, constant=constant, may_hold_minus_inf=may_hold_minus_inf)


def load(folder: str | Path, original: Callable[..., object] | None = None) -> Result:
    """The result that ``Result.save`` wrote, callable again; nothing that the folder holds is executed.

    Args:
        folder: the saved run.
        original: the function that was searched for; answers calls that the run is not for. Without it they raise.

    Raises:
        PrismError: the folder is no saved run, was changed, or is of another version.
    """
    from prism.restored import load as load_run

    return load_run(folder, original)
