"""Prism: a symbolic superoptimizer for tensor programs.

    import prism

    fast = prism.superoptimize(fn, *example_inputs)
    y = fast(*inputs)          # in place of fn(*inputs)
    print(fast.report())

    print(prism.prove(fn, rewritten, *example_inputs))
    print(prism.explain(fn, *example_inputs))

Importing this package imports neither torch nor any of the engines; they come at first use.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack, overload

if TYPE_CHECKING:
    import torch

    from prism.decorated import Decorated
    from prism.explanation import Explanation
    from prism.options import Dynamic
    from prism.partitioned import Partitioned
    from prism.result import Result
    from sgraph.axis import Extent
    from verify.verdict import Verdict

__version__: Final = "0.1.0"

__all__ = ["PrismError", "__version__", "explain", "load", "prove", "superoptimize"]


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


class MoreOptions(TypedDict, total=False):
    """What ``superoptimize`` takes beside its first options."""

    sizes: Mapping[str, Sequence[Extent]] | None
    seed: int
    out: str | Path | None
    progress: bool
    use_store: bool


@overload
def superoptimize(
    *,
    target: str | None = None,
    effort: str = "default",
    constant: Collection[str] = (),
    may_hold_minus_inf: Collection[str] = (),
    dynamic: Dynamic | None = None,
    fallback: bool = True,
    example: Sequence[object] | None = None,
    **options: Unpack[MoreOptions],
) -> Callable[[Callable[..., object]], Decorated]: ...


@overload
def superoptimize(
    function: Callable[..., object],
    *inputs: object,
    target: str | None = None,
    effort: str = "default",
    constant: Collection[str] = (),
    may_hold_minus_inf: Collection[str] = (),
    dynamic: Dynamic | None = None,
    fallback: Literal[False],
    example: None = None,
    **options: Unpack[MoreOptions],
) -> Result: ...


@overload
def superoptimize(
    function: Callable[..., object],
    *inputs: object,
    target: str | None = None,
    effort: str = "default",
    constant: Collection[str] = (),
    may_hold_minus_inf: Collection[str] = (),
    dynamic: Dynamic | None = None,
    fallback: bool = True,
    example: None = None,
    **options: Unpack[MoreOptions],
) -> Result | Partitioned: ...


def superoptimize(
    function: Callable[..., object] | None = None,
    *inputs: object,
    target: str | None = None,
    effort: str = "default",
    constant: Collection[str] = (),
    may_hold_minus_inf: Collection[str] = (),
    dynamic: Dynamic | None = None,
    fallback: bool = True,
    example: Sequence[object] | None = None,
    **options: Unpack[MoreOptions],
) -> Result | Partitioned | Callable[[Callable[..., object]], Decorated]:
    """Find the fastest equal of a torch function, with the reason to believe that it is equal.

    Without a function it is a decorator, ``@prism.superoptimize(effort="quick")``: the search is run at the first call,
    for its inputs, or right away for those given as ``example``.

    Args:
        function: a function of tensors that returns a tensor or a tuple of them. It may have no side effects: where it
            is one program, as much as it does beside computing is lost.
        inputs: example tensors, one per parameter; their shapes are the ones tuned for.
        target: ``cpu``, ``a100``, ``h100``, ``h200`` or ``b200``; the GPU if there is one, else the CPU.
        effort: ``quick``, ``default`` or ``max``.
        constant: parameters whose contents stay the same between calls (weights).
        may_hold_minus_inf: parameters that are additive masks; all others are finite.
        dynamic: by parameter and dimension, the range of a size that is known only at call time: (low, high),
            (low, high, divisor), or an ``sgraph.axis.Size`` to name one size in several places.
        fallback: whether a function that is not one program is optimised region by region, the rest staying torch;
            it is called once for that, on copies of the inputs. Otherwise it raises ``UnsupportedProgram`` or
            ``UnsupportedOperator``.
        example: for the decorator, inputs to search for at once.
        options: ``sizes``: for a parameter, the size of each dimension (the long form of ``dynamic``); ``seed`` of
            every random choice, the same seed gives the same families in the same order; ``out``: folder for sources,
            report and certificate; ``progress``: whether to show a live line on a terminal; ``use_store``: whether an
            earlier result of the same search may be returned, and this one is kept.

    Returns:
        A callable with ``.source``, ``.report()``, ``.to_json()`` and ``.save()``; with ``.verdict`` and ``.speedup``
        where the function is one program, with ``.results`` by region where it is not.

    Raises:
        PrismError: one of its subclasses (module ``sgraph.errors``) for everything a user can mend.
    """
    from prism.door import open_door

    asked: dict[str, Any] = {
        "target": target,
        "effort": effort,
        "constant": constant,
        "may_hold_minus_inf": may_hold_minus_inf,
        "dynamic": dynamic,
        "fallback": fallback,
        **options,
    }
    if function is not None:
        return open_door(function, inputs, **asked)

    def decorate(decorated: Callable[..., object]) -> Decorated:
        from prism.decorated import Decorated

        found = Decorated(decorated, asked)
        if example is not None:
            found.search(*example)
        return found

    return decorate


def explain(
    function: Callable[..., object],
    *inputs: object,
    sizes: Mapping[str, Sequence[Extent]] | None = None,
    constant: Collection[str] = (),
    may_hold_minus_inf: Collection[str] = (),
) -> Explanation:
    """What ``superoptimize`` would optimise in a function, what it would leave to torch and why, before any search.

    A function that is not one program is called once, on copies of the inputs.

    Args:
        function: as for ``superoptimize``.
        inputs: example inputs.
        sizes: for a parameter, the size of each dimension.
        constant: parameters whose contents stay the same between calls.
        may_hold_minus_inf: parameters that are additive masks; all others are finite.

    Returns:
        An explanation with ``.text``, ``.to_json()``, ``.regions``, ``.cuts`` and ``.notes``; notebooks show it.

    Raises:
        PrismError: the function does not run on the inputs.
    """
    from prism.explanation import explain as explain_function

    return explain_function(function, inputs, sizes=sizes, constant=constant, may_hold_minus_inf=may_hold_minus_inf)


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
