"""Batches and the store, measured: ``python -m benchmarks.batch kill|kill-cheap|throughput|store [--write]``.

``kill``
    A batch of twenty subgraphs with two workers whose driver and workers are ended (SIGKILL) at random moments, and
    resumed; its store is compared with that of a batch that nobody disturbed.
``kill-cheap``
    The same with two hundred tasks that wait for 0.3 s, so that every kill comes between two results.
``throughput``
    Simulated workers that only wait for as long as a measurement would take: what the driver and its ledger cost.
``store``
    How long a search takes that the store answers, beyond import and capture.

``--write`` adds the rows to ``benchmarks/results/batch.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import torch

from benchmarks.workloads import WORKLOADS, Workload
from prism.batch.driver import Driver
from prism.batch.ledger import Ledger
from prism.batch.progress import EventLog, View
from prism.batch.task import Done, Outcome, Task
from prism.store import open_store
from verify.certificate import versions

RESULTS: Final = Path(__file__).parent / "results" / "batch.json"
PROGRAMS: Final = Path(__file__).parent / "batch_programs.py"
KILLS: Final = 30
BETWEEN_S: Final = (3.0, 17.0)
"""Shortest and longest time between a start or a kill and the next kill."""
BETWEEN_CHEAP_S: Final = (0.5, 4.0)
STORE_WORKLOADS: Final = ("rmsnorm_linear", "gated_mlp", "softmax", "gqa_decode")

log = logging.getLogger("prism.store")

Record = dict[str, object]


# ---------------------------------------------------------------------------------------------------- kill


def kill(seed: int) -> Record:
    """The killed batch against the undisturbed one."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = _job(folder)
        start = time.perf_counter()
        subprocess.run(_command(job), env=_environment(folder / "calm"), check=False, stderr=subprocess.DEVNULL)
        calm_s = time.perf_counter() - start
        (folder / "runs" / "events.jsonl").unlink()
        start = time.perf_counter()
        command, environment = _command(job, "--resume"), _environment(folder / "rough")
        disturbed = _Disturbed(command, environment, folder / "rough", folder / "runs" / "events.jsonl", BETWEEN_S)
        disturbed.run(draw)
        rough_s = time.perf_counter() - start
        return {
            "what": "kill",
            "seed": seed,
            "undisturbed_s": round(calm_s, 1),
            "disturbed_s": round(rough_s, 1),
            **disturbed.record(),
            **_compared(_contents(folder / "calm"), _contents(folder / "rough")),
        }


def kill_cheap(seed: int) -> Record:
    """Two hundred tasks that only wait, killed again and again against undisturbed."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = folder / "runs"
        output.mkdir()
        calm, rough = folder / "calm", folder / "rough"
        command = [sys.executable, "-m", "tests.batch_jobs"]
        last = [str(output), "200", "0.3"]
        start = time.perf_counter()
        subprocess.run([*command, str(calm), *last], env=_environment(calm), check=True)
        calm_s = time.perf_counter() - start
        (output / "events.jsonl").unlink()
        start = time.perf_counter()
        disturbed = _Disturbed(
            [*command, str(rough), *last], _environment(rough), rough, output / "events.jsonl", BETWEEN_CHEAP_S
        )
        disturbed.run(draw)
        rough_s = time.perf_counter() - start
        return {
            "what": "kill-cheap",
            "seed": seed,
            "undisturbed_s": round(calm_s, 1),
            "disturbed_s": round(rough_s, 1),
            **disturbed.record(),
            **_compared(_plain(calm), _plain(rough)),
        }


def _compared(calm: Mapping[str, str], rough: Mapping[str, str]) -> Record:
    tasks = [k for k in calm if k.startswith("task ")]
    return {
        "tasks": len(tasks),
        "workers": 2,
        "entries": len(calm),
        "entries_after_kills": len(rough),
        "entries_that_differ": sorted(k for k in calm.keys() | rough.keys() if calm.get(k) != rough.get(k)),
        "states": sorted({str(json.loads(calm[t])[0]) for t in tasks}),
    }


def _job(folder: Path) -> Path:
    """Twenty subgraphs for a modelled H200. Ended workers count as crashes, so many have to be allowed here."""
    names = [f"p{i:02}" for i in range(1, 21)]
    head = f'[batch]\ntargets = ["h200"]\neffort = "quick"\ncrashes = {10 * KILLS}\n'
    path = folder / "job.toml"
    program = os.path.relpath(PROGRAMS, folder)
    path.write_text(head + "".join(f'\n[[subgraph]]\nfunction = "{program}::{n}"\n' for n in names))
    return path


def _command(job: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "prism.cli", "batch", str(job), "--workers", "2", *more]


def _environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "PRISM_CACHE_DIR": str(cache), "PRISM_WORKERS": "1", "PYTHONPATH": str(Path.cwd())}


@dataclass(slots=True)
class _Disturbed:
    """A batch that is killed until it has ended."""

    command: list[str]
    """Starts or resumes it."""
    environment: dict[str, str]
    """For the command."""
    cache: Path
    """Where its store is."""
    events: Path
    """Its log."""
    between_s: tuple[float, float]
    """Shortest and longest time until the next kill."""
    killed: dict[str, int] = field(default_factory=lambda: {"driver": 0, "worker": 0})
    """How often what was ended."""
    at: list[int] = field(default_factory=list[int])
    """How many tasks were recorded at each kill."""
    repeated: list[str] = field(default_factory=list[str])
    """Tasks that started again after they were recorded."""

    def run(self, draw: random.Random) -> None:
        """Kill, resume, and so on, until a driver ends by itself."""
        while True:
            before, seen = _recorded(self.cache), len(_started(self.events))
            driver = subprocess.Popen(self.command, env=self.environment, stderr=subprocess.DEVNULL)
            while sum(self.killed.values()) < KILLS and driver.poll() is None:
                time.sleep(draw.uniform(*self.between_s))
                victim = draw.choice(("driver", "worker"))
                processes = [driver.pid] if victim == "driver" else _workers(driver.pid)
                if driver.poll() is not None or not processes:
                    continue
                os.kill(draw.choice(processes), signal.SIGKILL)
                self.killed[victim] += 1
                self.at.append(len(_recorded(self.cache)))
                if victim == "driver":
                    break
            driver.wait()
            self.repeated += [t for t in _started(self.events)[seen:] if t in before]
            if driver.returncode >= 0:
                return

    def record(self) -> Record:
        """For the results."""
        return {"kills": self.killed, "recorded_at_each_kill": self.at, "recorded_work_done_again": self.repeated}


def _workers(driver: int) -> list[int]:
    listed = Path(f"/proc/{driver}/task/{driver}/children")
    children = [int(p) for p in listed.read_text().split()] if listed.exists() else []
    return [p for p in children if "spawn_main" in Path(f"/proc/{p}/cmdline").read_text()]


def _started(events: Path) -> list[str]:
    if not events.exists():
        return []
    found = [json.loads(line) for line in events.read_text().splitlines()]
    return [e["task"] for e in found if e["event"] == "task started"]


def _recorded(cache: Path) -> set[str]:
    if not cache.exists():
        return set()
    with open_store(cache) as store:
        return {t for (t,) in store.connection.execute("SELECT task FROM tasks WHERE state = 'done'")}


def _contents(cache: Path) -> dict[str, str]:
    """Everything in a store but times: tasks with their results, and every file of every run."""
    found: dict[str, str] = {}
    with open_store(cache) as store:
        for task, state, result in store.connection.execute("SELECT task, state, result FROM tasks"):
            found[f"task {task}"] = json.dumps([state, result])
        for entry in store.entries():
            saved = store.read(entry.digest)
            files = {k: v for k, v in saved.manifest.files.items() if k != "report.json"}
            manifest = saved.manifest.model_copy(update={"files": files})
            report = saved.report.model_copy(update={"seconds": {}, "exact": None})
            found[f"manifest {entry.digest}"] = manifest.model_dump_json()
            found[f"report {entry.digest}"] = report.model_dump_json()
    return found


def _plain(cache: Path) -> dict[str, str]:
    """The same for tasks that only wait: what they store is no run."""
    found: dict[str, str] = {}
    with open_store(cache) as store:
        for task, state, result in store.connection.execute("SELECT task, state, result FROM tasks"):
            found[f"task {task}"] = json.dumps([state, result])
        for digest, manifest in store.connection.execute("SELECT digest, manifest FROM runs"):
            found[f"manifest {digest}"] = manifest.decode()
        for digest, name, data in store.connection.execute("SELECT digest, name, data FROM files"):
            found[f"{name} {digest}"] = data.decode()
    return found


# ----------------------------------------------------------------------------------------------- throughput


class Simulated:
    """Workers that wait: threads of this process."""

    def __init__(self, workers: int, durations: Mapping[str, float]) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._durations = durations
        self._running: dict[Future[None], Task] = {}
        self._workers = workers

    @property
    def free(self) -> int:
        """Idle workers."""
        return self._workers - len(self._running)

    def submit(self, task: Task) -> None:
        """Wait for as long as the task's measurement would take."""
        self._running[self._pool.submit(time.sleep, self._durations[task.name])] = task

    def wait(self, seconds: float) -> Sequence[tuple[Task, Outcome]]:
        """What has ended."""
        ready = wait(self._running, seconds, FIRST_COMPLETED).done
        return [(self._running.pop(f), Done({"measured_us": 1.0})) for f in ready]

    def stop(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def throughput(seed: int) -> Iterator[Record]:
    """Efficiency of 1, 8 and 64 simulated workers on measurements of log-normal length, twenty per worker."""
    for workers in (1, 8, 64):
        draw = random.Random(seed)
        names = [f"t{i}" for i in range(20 * workers)]
        durations = {n: draw.lognormvariate(0.0, 0.5) for n in names}
        with tempfile.TemporaryDirectory() as folder, open_store(Path(folder)) as store:
            tasks = [Task(n, "", (), (), "h200", "quick", 0, 3600.0, folder) for n in names]
            ledger = Ledger(store, "throughput")
            ledger.start(tasks, resume=False)
            events = EventLog(Path(folder) / "events.jsonl")
            driver = Driver(
                ledger, {t.name: t for t in tasks}, Simulated(workers, durations), 3, events, View(None, len(tasks))
            )
            start = time.perf_counter()
            rows = driver.run()
            seconds = time.perf_counter() - start
        assert all(r.state == "done" for r in rows)
        work = sum(durations.values())
        yield {
            "what": "throughput",
            "seed": seed,
            "workers": workers,
            "tasks": len(names),
            "simulated_seconds_of_work": round(work, 1),
            "seconds": round(seconds, 2),
            "efficiency_percent": round(100 * work / workers / seconds, 1),
        }


# ---------------------------------------------------------------------------------------------------- store


def answered(seed: int) -> Iterator[Record]:
    """Searches that the store answers: seconds beyond capture, the median and the worst of nine."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PRISM_CACHE_DIR"] = folder
        for name in STORE_WORKLOADS:
            workload = WORKLOADS[name]
            inputs = workload.inputs({**workload.points[0], **workload.model}, seed=seed)
            start = time.perf_counter()
            _search(workload, inputs, seed)
            searched = time.perf_counter() - start
            beyond: list[float] = []
            for _ in range(9):
                start = time.perf_counter()
                seconds = _search(workload, inputs, seed)
                assert "saturate" not in seconds, "not from the store"
                beyond.append(time.perf_counter() - start - seconds["capture"])
            yield {
                "what": "store",
                "workload": name,
                "point": dict(workload.points[0]),
                "search_s": round(searched, 2),
                "answered_beyond_capture_s": {
                    "median": round(statistics.median(beyond), 4),
                    "worst": round(max(beyond), 4),
                },
            }


def _search(workload: Workload, inputs: tuple[torch.Tensor, ...], seed: int) -> Mapping[str, float]:
    """Seconds by stage of one search."""
    import prism

    found = prism.superoptimize(workload.function, *inputs, target="h200", effort="quick", seed=seed, fallback=False)
    return found.record.seconds


def main() -> None:
    """Run one of them and print its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("kill", "kill-cheap", "throughput", "store"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="record the rows")
    arguments = parser.parse_args()
    seed: int = arguments.seed
    made: dict[str, Callable[[], Iterable[Record]]] = {
        "kill": lambda: [kill(seed)],
        "kill-cheap": lambda: [kill_cheap(seed)],
        "throughput": lambda: throughput(seed),
        "store": lambda: answered(seed),
    }
    rows: list[Record] = []
    for row in made[arguments.what]():
        rows.append(row)
        sys.stdout.write(json.dumps(row, indent=2) + "\n")
    if arguments.write:
        _write(arguments.what, rows, seed)


def _write(what: str, rows: Sequence[Record], seed: int) -> None:
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known[what] = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m benchmarks.batch {what} --seed {seed} --write",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, other work running at the same time",
        "versions": versions(),
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
