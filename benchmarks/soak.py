"""Long random tests that can be stopped and go on: the same command continues its file.

    python -m benchmarks.soak terms --count 2000 --seed 1 --out benchmarks/results/soak_terms.json

``terms``: random terms and random sound rewritings of them, which have to be proved equal, and as many broken ones,
each seen to differ in numbers first, none of which may be. The exit code is 1 if one was, or more than one sound
rewriting in a thousand was not proved, and 3 if the run is not complete yet.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from benchmarks.soak_terms import Soak, run

MISSED: Final = 1e-3
"""Share of sound rewritings that may stay unproved."""


def main() -> None:
    """Run a soak and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Long random tests.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    terms = kinds.add_parser("terms", help="random terms against the normal form")
    terms.add_argument("--count", type=int, default=2_000, help="terms of each kind (default 2000)")
    terms.add_argument("--seed", type=int, default=1, help="of the first term (default 1)")
    terms.add_argument("--out", type=Path, default=Path("soak_terms.json"), help="the file of the run")
    arguments = parser.parse_args()
    command = "python -m benchmarks.soak " + " ".join(sys.argv[1:])
    results = run(Soak(arguments.count, arguments.seed), arguments.out, command=command)
    sound, broken = len(results.of("sound")), len(results.of("broken"))
    print(f"sound:  {sound - len(results.missed)} of {sound} proved")
    print(f"broken: {len(results.accepted)} of {broken} proved")
    for kind, seed, answer in (*results.missed, *results.accepted):
        print(f"  {kind} {seed}: {answer}")
    if results.accepted or len(results.missed) > MISSED * results.soak.count:
        sys.exit(1)
    sys.exit(0 if results.complete else 3)


if __name__ == "__main__":
    main()
