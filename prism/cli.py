"""The command line. Every table has a ``--json`` beside it; mistakes exit with 2 and one screen of text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sgraph.errors import PrismError

app = typer.Typer(
    name="prism",
    help="Prism: a PyTorch subgraph in, a proved and tuned kernel out.",
    epilog="Every command takes --traceback: show where an error comes from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def optimize(
    function: Annotated[str, typer.Argument(metavar="FILE::FUNCTION", help="What to optimise.")],
    target: Annotated[str | None, typer.Option(help="cpu, a100, h100, h200, b200; default: the GPU, else cpu.")] = None,
    effort: Annotated[str, typer.Option(help="quick, default or max.")] = "default",
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="NAME=dtype[sizes], such as x=bf16[M:1..64,4096]. Repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run: sources, report, certificate.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    as_json: Json = False,
) -> None:
    """Search, prove, lower, tune and rank kernels for one function."""
    from prism.frontend import load_function, override_inputs, parse_input_spec
    from prism.pipeline import Request, run
    from prism.progress import Progress
    from prism.settings import load

    progress = Progress(live=not as_json)
    with progress.shown():
        with progress.stage("load"):
            loaded = load_function(function)
            tensors, sizes = override_inputs(loaded, [parse_input_spec(text) for text in inputs or []])
        request = Request(loaded.function, tuple(tensors), loaded.name, sizes, target, effort, seed, out)
        result = run(request, load(), progress)
    if as_json:
        typer.echo(result.to_json())
        return
    from rich.console import Console

    from prism.render import WIDTH, show

    show(result.record, Console(width=None if sys.stdout.isatty() else WIDTH))


EXIT_CODES = {"proved": 0, "refuted": 1, "unknown": 3}
"""How ``prism prove`` ends by its verdict; mistakes end with 2 everywhere."""


@app.command()
def prove(
    first: Annotated[str, typer.Argument(metavar="FILE::FUNCTION", help="The specification; its file has the inputs.")],
    second: Annotated[str, typer.Argument(metavar="FILE::FUNCTION", help="What is to be proved equal to it.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="NAME=dtype[sizes], such as x=bf16[M:1..64,4096]. Repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove that two functions compute the same, or show where they differ.

    Exit code 0: proved; 1: refuted; 3: unknown; 2: mistakes.
    """
    from prism.frontend import load_function, override_inputs, parse_input_spec
    from prism.proving import load_candidate
    from prism.proving import prove as prove_functions

    spec, candidate = load_function(first), load_candidate(second)
    tensors, sizes = override_inputs(spec, [parse_input_spec(text) for text in inputs or []])
    verdict = prove_functions(spec.function, candidate, tensors, sizes=sizes)
    if as_json:
        fields = ("status", "reason", "facts", "counterexample", "seconds")
        record = {"left": first, "right": second, **{name: getattr(verdict, name) for name in fields}}
        typer.echo(json.dumps(record, indent=2))
    else:
        typer.echo(f"left   {first}\nright  {second}\n{verdict}\ndecided in {1e3 * verdict.seconds:.1f} ms")
    raise typer.Exit(EXIT_CODES[verdict.status])


@app.command()
def doctor(as_json: Json = False) -> None:
    """Versions, GPU, Triton, caches: what this machine has and what is missing."""
    from prism.doctor import examine, to_records
    from prism.settings import load

    findings = examine(load())
    if as_json:
        typer.echo(json.dumps(to_records(findings), indent=2))
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject:<22} {finding.text}")
    if not all(f.ok for f in findings):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: errors that a person can mend are one screen and exit code 2."""
    from prism.log import configure
    from prism.settings import load

    arguments = [a for a in sys.argv[1:] if a != "--traceback"]
    try:
        configure(load().log)
        app(args=arguments, prog_name="prism")
    except PrismError as error:
        if "--traceback" in sys.argv:
            raise
        sys.stderr.write(f"prism: {type(error).__name__}: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("prism: stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
