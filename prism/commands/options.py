"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="NAME=dtype[sizes], such as x=bf16[M:1..64,4096]. Repeatable."),
]
Masks = Annotated[
    list[str] | None,
    typer.Option("--may-hold-minus-inf", metavar="NAME", help="An input that is an additive mask. Repeatable."),
]
Target = Annotated[str | None, typer.Option(help="cpu, a100, h100, h200, b200; default: the GPU, else cpu.")]
Effort = Annotated[str, typer.Option(help="quick, default or max.")]
Store = Annotated[bool, typer.Option("--store/--no-store", help="Take the result from the store, and keep it there.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]
Constants = Annotated[
    list[str] | None,
    typer.Option("--constant", metavar="NAME", help="An input that stays the same between calls. Repeatable."),
]
