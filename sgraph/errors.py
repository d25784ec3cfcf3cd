"""Every mistake a user can make, one exception each.

A message says what was seen, where, and what to do next. The command line prints it on one screen and exits
with 2; ``assert`` is left for Prism's own invariants.
"""

from __future__ import annotations


class PrismError(Exception):
    """Base of everything Prism raises on purpose."""

    def __init__(self, seen: str, *, where: str = "", do: str = "") -> None:
        self.seen = seen
        """What was found."""
        self.where = where
        """The place: a file and line, an argument, a field."""
        self.do = do
        """What the reader can do about it."""
        super().__init__("\n".join(p for p in (seen, where and f"  at: {where}", do and f"  try: {do}") if p))


class UnsupportedOperator(PrismError):
    """The captured program uses an operator that the language has no meaning for."""


class UnsupportedProgram(PrismError):
    """The function cannot be captured: data-dependent control flow, a reshape without a common refinement."""


class InputError(PrismError):
    """An example input or a call argument is not what the program takes."""


class InputSpecError(PrismError):
    """An ``--input NAME=dtype[sizes]`` that cannot be read."""


class FileOrFunctionNotFound(PrismError):
    """``FILE::function`` names something that does not exist or cannot be loaded."""


class UnknownTarget(PrismError):
    """No device of that name."""


class OutputNotWritable(PrismError):
    """The output folder cannot be written."""


class NoFeasibleFamily(PrismError):
    """The search ended without one proved family that fits the target."""


class SettingsError(PrismError):
    """An environment variable has a value that cannot be used."""


class MissingDependency(PrismError):
    """Something optional is needed now and not installed."""


class SaturationFailed(PrismError):
    """The rewrite engine ended without a usable table."""


class SoundnessError(PrismError):
    """The normal form refuted what the rewrite table calls equal. The search stops: please report it."""


class CompilationFailed(PrismError):
    """A kernel does not compile for the target; the reason is the compiler's."""


class KernelCheckFailed(PrismError):
    """A kernel broke a rule while interpreted: a stray access, a write race, an undefined value used."""


class NothingToExport(PrismError):
    """A run has no kernel of our own that passed its checks, so there is nothing to ship."""


class RunNotFound(PrismError):
    """The folder is no saved run."""


class UnreadableRun(PrismError):
    """A saved run is cut off, was changed, or holds something that no run has. Nothing of it was executed."""


class ForeignRun(PrismError):
    """A saved run is of a version that this one does not read, or prints as other text than it was saved with."""


class UnreadableStore(PrismError):
    """The store's file is damaged, locked, or cannot be opened. A search goes on without it."""


class ForeignStore(PrismError):
    """The store's file is another program's, or of another version."""


class JobFileError(PrismError):
    """A batch job file that cannot be read; says at which line."""


class BatchError(PrismError):
    """A batch that cannot start or go on: it runs already, its job file was changed, a worker cannot be started."""


class LoweringLimit(PrismError):
    """A kernel that cannot be printed as Triton source yet; the message names what stands in the way."""
