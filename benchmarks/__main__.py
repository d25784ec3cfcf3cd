"""``python -m benchmarks``: the workloads on a target, searched, tuned and measured against the baselines."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from autotune.calibration import calibrated
from autotune.targets import find_target
from benchmarks.runner import RESULTS, Row, line, points_of, present, run_all, write
from benchmarks.workloads import WORKLOADS
from prism.settings import load
from sgraph.errors import InputError, PrismError


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--set", choices=("core", "paper", "all"), default="core", help="which workloads")
    parser.add_argument("--workload", action="append", default=[], metavar="NAME", help="only this one; repeatable")
    parser.add_argument("--target", default="cpu", help="cpu, a100, h100, h200, b200 or a target file")
    parser.add_argument("--dtype", action="append", choices=("fp32", "bf16", "fp16"), help="repeatable")
    parser.add_argument("--at", default="", metavar="M=128,k=4096", help="only this size")
    parser.add_argument("--quick", action="store_true", help="one size of each workload, quick effort")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 1 keeps ratios on a busy machine")
    parser.add_argument("--out", type=Path, help="the JSON file; default: benchmarks/results/DATE-TARGET-SET.json")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        _run(options)
    except PrismError as error:
        sys.stderr.write(f"benchmarks: {type(error).__name__}: {error}\n")
        sys.exit(2)


def _run(options: argparse.Namespace) -> None:
    unknown = [n for n in options.workload if n not in WORKLOADS]
    if unknown:
        raise InputError(f"no workload named {unknown[0]!r}", where="--workload", do=f"one of {', '.join(WORKLOADS)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = load()
    target = calibrated(find_target(options.target), settings.cache_dir / "calibrations")
    work = points_of(options.workload, options.set, quick=options.quick)
    if options.at:
        sizes = {k: int(v) for k, v in (part.split("=") for part in options.at.split(","))}
        work = [(w, sizes) for w in {w.name: w for w, _ in work}.values()]
    kinds = options.dtype or (["fp32", "bf16"] if target.kind == "cpu" else ["bf16"])
    out = options.out or RESULTS / f"{time.strftime('%Y-%m-%d')}-{target.name}-{options.set}.json"
    if not present(target):
        sys.stdout.write(f"no {target.name} here: search and model are run; tuning, baselines and ratios are not\n")
    run = run_all(
        work,
        kinds,
        target,
        settings,
        quick=options.quick,
        seed=options.seed,
        said=_said,
        save=lambda so_far: write(so_far, out),
    )
    write(run, out)
    losses, failures = run.losses(), run.failures()
    sys.stdout.write(f"{len(run.rows)} rows on {run.device}, load {run.load[0]:.1f}, {run.threads} threads\n")
    sys.stdout.write(f"losses: {', '.join(f'{r.workload} {r.point} {r.dtype}' for r in losses) or 'none'}\n")
    sys.stdout.write(f"failed or not run: {len(failures)}\n{out}\n")


def _said(row: Row) -> None:
    sys.stdout.write(line(row) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
