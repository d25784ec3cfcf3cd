"""The command line. Every table has a ``--json`` beside it; mistakes exit with 2 and one screen of text."""

from __future__ import annotations

import sys

import typer

from prism.commands.batch import batch
from prism.commands.cache import cache
from prism.commands.calibrate import calibrate
from prism.commands.doctor import doctor
from prism.commands.explain import explain
from prism.commands.explain_cost import explain_cost
from prism.commands.export import export
from prism.commands.load import load
from prism.commands.optimize import optimize
from prism.commands.prove import prove
from prism.commands.report import report
from prism.commands.search import search
from prism.commands.show import show
from prism.commands.verify import verify
from sgraph.errors import PrismError

app = typer.Typer(
    name="prism",
    help="Prism: a PyTorch subgraph in, a proved and tuned kernel out.",
    epilog="Every command takes --traceback: show where an error comes from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # [sizes] in a help text is no markup
)

app.command()(optimize)
app.command()(search)
app.command()(show)
app.command()(prove)
app.command()(explain)
app.command()(export)
app.command()(verify)
app.command()(report)
app.command()(load)
app.command()(batch)
app.add_typer(cache)
app.command()(calibrate)
app.command("explain-cost")(explain_cost)
app.command()(doctor)


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
