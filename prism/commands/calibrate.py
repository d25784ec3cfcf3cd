"""``prism calibrate``."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from prism.commands.options import Json, Target


def calibrate(target: Target = None, as_json: Json = False) -> None:
    """Measure bandwidth, dot peaks, launch cost and latency of this machine's device, and keep them.

    What is kept replaces the assumptions of the target in later searches; datasheet peaks of GPUs stay.
    """
    from autotune.calibration import calibrate as measure
    from autotune.calibration import keep
    from autotune.targets import detect_target, find_target
    from prism.settings import load

    wanted = find_target(target) if target else detect_target()
    found = measure(wanted)
    path = keep(found, load().cache_dir / "calibrations")
    if as_json:
        typer.echo(json.dumps({**asdict(found), "kept": str(path)}, indent=2))
        return
    typer.echo(f"{found.target}: {found.device}, {found.date}")
    typer.echo(f"copy from memory     {found.copy_bytes_per_s / 1e9:10.1f} GB/s")
    typer.echo(f"copy in cache        {found.cache_bytes_per_s / 1e9:10.1f} GB/s")
    for name, flops in found.dot_flops_per_s.items():
        typer.echo(f"dot {name:<16} {flops / 1e12:10.3f} TFLOP/s")
    typer.echo(f"one more launch      {found.launch_s * 1e6:10.2f} us")
    typer.echo(f"latency of a load    {found.latency_s * 1e6:10.2f} us")
    typer.echo(f"kept in {path}")
