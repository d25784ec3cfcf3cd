"""Batches: every mistake of a job file is named, and work survives its workers and its driver."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from prism.batch.executor import Executor
from prism.batch.job import digest_of, read_job
from prism.batch.ledger import LEASE_S, Ledger, owner_of
from prism.batch.lines import line_of
from prism.batch.local import LocalExecutor
from prism.batch.task import Crashed, Done, Failed, Outcome, Task
from prism.batch.work import capture
from prism.cli import main
from prism.store import Store, open_store
from prism.store.database import FILE, connect
from sgraph.errors import BatchError, FileOrFunctionNotFound, JobFileError, PrismError
from tests.batch_jobs import drive, many, task, work

PROGRAM = """
import torch

def linear(x, weight):
    return torch.relu(x) @ weight

def inputs():
    return torch.randn(8, 32), torch.randn(32, 48)
"""

JOB = """\
[batch]
targets = ["h200", "a100"]
effort = "quick"
seeds = [0, 1]
budget_s = 90

[[subgraph]]
function = "program.py::linear"
constant = ["weight"]

[[subgraph.shapes]]
x = "fp32[16,32]"

[[subgraph.shapes]]
x = "fp32[M:1..64,32]"

[[subgraph]]
function = "program.py::linear"
name = "second"
targets = ["b200"]
seeds = [3]
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


# ------------------------------------------------------------------------------------------------ job files


def test_a_job_is_its_tasks(job: Path) -> None:
    read, tasks = read_job(job)
    assert len(tasks) == 2 * 2 * 2 + 1
    first, last = tasks[0], tasks[-1]
    assert first.name == "linear-0-h200-0"
    assert (first.inputs, first.constant, first.budget_s) == (("x=fp32[16,32]",), ("weight",), 90.0)
    assert (last.name, last.inputs, last.effort) == ("second-0-b200-3", (), "quick")
    assert last.folder == str(job.parent / "runs" / last.name)
    assert len({t.name for t in tasks}) == len(tasks)
    assert read.batch.crashes == 3
    assert digest_of(tasks) == digest_of(read_job(job)[1]) != digest_of(tasks, "null")


MISTAKES: dict[str, tuple[str, str, int, str]] = {
    "no TOML": ("seeds = [0, 1]", "seeds = [0, 1", 5, "no TOML"),
    "unknown field": ("effort =", "efort =", 3, "Extra inputs are not permitted"),
    "wrong type": ("budget_s = 90", 'budget_s = "90"', 5, "valid number"),
    "negative": ("budget_s = 90", "budget_s = -1", 5, "greater than 0"),
    "empty list": ("seeds = [0, 1]", "seeds = []", 4, "at least 1 item"),
    "negative seed": ("seeds = [3]", "seeds = [-3]", 21, "greater than or equal to 0"),
    "unknown target": ('"a100"]', '"a1000"]', 2, "no target named 'a1000'"),
    "unknown target of one": ('["b200"]', '["b20"]', 20, "no target named 'b20'"),
    "unknown effort": ('"quick"', '"quik"', 3, "effort 'quik' does not exist"),
    "no such file": ('"program.py::linear"\nname', '"programs.py::linear"\nname', 18, "there is no file"),
    "no such function": ('"program.py::linear"\nc', '"program.py::linar"\nc', 8, "no function `linar`"),
    "no function": ('"program.py::linear"\nc', '"program.py"\nc', 8, "names no function"),
    "bad shape": ("fp32[M:1..64,32]", "fp32[M:64..1,32]", 15, "the range 64..1 is empty"),
    "bad element type": ("fp32[16,32]", "fp31[16,32]", 12, "`fp31` is no element type"),
    "bad name": ('name = "second"', 'name = "../second"', 19, "pattern"),
    "missing function": ('function = "program.py::linear"\nname', "name", 17, "Field required"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_line(mistake: str, job: Path) -> None:
    good, bad, line, words = MISTAKES[mistake]
    assert JOB.count(good) == 1
    job.write_text(JOB.replace(good, bad))
    with pytest.raises(JobFileError) as refused:
        read_job(job)
    assert words in str(refused.value)
    assert f"line {line}" in str(refused.value)
    assert "try:" in str(refused.value)


def test_a_line_is_found_for_every_place() -> None:
    assert line_of(JOB, ("batch", "seeds", 1)) == 4
    assert line_of(JOB, ("subgraph", 0, "shapes", 1, "x")) == 15
    assert line_of(JOB, ("subgraph", 0, "shapes", 1)) == 14
    assert line_of(JOB, ("subgraph", 1, "seeds")) == 21
    assert line_of(JOB, ("nothing",)) == 1


def test_a_file_that_is_no_job_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    with pytest.raises(JobFileError, match="no job file"):
        read_job(path)
    for data in (b"", b"\x80\x04\x95cos\nsystem", bytes(256), b"[" * 100_000, b"a." * 50_000 + b"a = 1"):
        path.write_bytes(data)
        with pytest.raises(JobFileError, match="try:"):
            read_job(path)
    with path.open("wb") as file:
        file.truncate(1 << 32)
    with pytest.raises(JobFileError, match="bytes"):
        read_job(path)


def test_a_hundred_random_corruptions_are_refused_or_another_job(job: Path) -> None:
    draw = random.Random(0)
    for number in range(100):
        data = bytearray(JOB.encode())
        for _ in range(draw.choice((1, 2, 8))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        job.write_bytes(bytes(data[: draw.randrange(len(data))] if number % 4 == 0 else data))
        try:
            _, tasks = read_job(job)
        except JobFileError as refused:
            assert "try:" in str(refused)
        else:  # a changed seed or name is a job too
            assert tasks


def test_an_exported_program_is_a_subgraph(tmp_path: Path) -> None:
    path = tmp_path / "a block.pt2"
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(FileOrFunctionNotFound, match="no exported program"):
        capture(task_of(path))
    exported = torch.export.export(torch.nn.Linear(32, 48, bias=False), (torch.randn(8, 32),))
    torch.export.save(exported, path)
    done = capture(task_of(path))
    assert (done.summary["program"], done.summary["status"]) == ("a_block", "captured")


def task_of(path: Path) -> Task:
    """The one task of a job file about this file."""
    job = path.with_suffix(".toml")
    job.write_text(f'[[subgraph]]\nfunction = "{path.name}"\n')
    (found,) = read_job(job)[1]
    assert found.name == "a_block-0-here-0"
    return found


# ------------------------------------------------------------------------------------------------ executors


def _local() -> Executor:
    return LocalExecutor(work, 2)


def _on_ray() -> Executor:
    pytest.importorskip("ray")
    from prism.batch.on_ray import RayExecutor

    return RayExecutor(work, 2)


@pytest.fixture(params=[_local, pytest.param(_on_ray, marks=pytest.mark.slow)], ids=["local", "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    start: Callable[[], Executor] = request.param
    made = start()
    try:
        yield made
    finally:
        made.stop()


def ended(executor: Executor, count: int) -> dict[str, Outcome]:
    """Outcomes by task name, of as many tasks as were submitted."""
    found: dict[str, Outcome] = {}
    deadline = time.monotonic() + 120
    while len(found) < count and time.monotonic() < deadline:
        for asked, outcome in executor.wait(0.5):
            assert asked.name not in found, "every task ends once"
            found[asked.name] = outcome
    return found


def test_an_executor_does_tasks_and_says_how_they_end(executor: Executor, tmp_path: Path) -> None:
    assert executor.free == 2
    assert executor.wait(0.01) == []
    executor.submit(task("fine", tmp_path))
    executor.submit(task("refuses", tmp_path))
    assert executor.free == 0
    found = ended(executor, 2)
    assert isinstance(found["fine"], Done)
    assert found["fine"].stored is not None
    assert found["fine"].stored.files["report.json"].decode() == found["fine"].summary["found"]
    assert found["refuses"] == Failed("InputError: the input is wrong\n  at: here\n  try: mend it")
    assert executor.free == 2
    executor.submit(task("raises", tmp_path))
    executor.submit(task("exits", tmp_path))
    found = ended(executor, 2)
    assert found["raises"] == Failed("ZeroDivisionError: division by zero")
    assert isinstance(found["exits"], Crashed)
    executor.submit(task("killed", tmp_path))
    executor.submit(task("again", tmp_path))
    found = ended(executor, 2)
    assert isinstance(found["killed"], Crashed)
    assert isinstance(found["again"], Done)


def test_a_worker_beyond_its_budget_is_ended(tmp_path: Path) -> None:
    executor = _local()
    try:
        executor.submit(task("hangs", tmp_path, budget_s=3.0))
        assert ended(executor, 1) == {"hangs": Failed("not done within its budget of 3 s")}
        executor.submit(task("fine", tmp_path))
        assert isinstance(ended(executor, 1)["fine"], Done)
    finally:
        executor.stop()


def test_a_signal_is_named(tmp_path: Path) -> None:
    executor = _local()
    try:
        executor.submit(task("killed", tmp_path))
        assert ended(executor, 1) == {"killed": Crashed("its worker was ended by SIGKILL")}
    finally:
        executor.stop()


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from prism.batch.on_ray import RayExecutor

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PrismError, match=r"pip install \"prism-superoptimizer\[ray\]\""):
        RayExecutor(work, 1)


# --------------------------------------------------------------------------------------------------- ledger


def ledger_of(tasks: list[Task], cache: Path, *, resume: bool = False) -> Ledger:
    ledger = Ledger(Store(connect(cache / FILE), cache / FILE), digest_of(tuple(tasks)))
    ledger.start(tasks, resume=resume)
    return ledger


def test_a_task_has_one_owner_until_its_lease_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = many(3, 0.0, tmp_path)
    first = ledger_of(tasks, tmp_path / "cache")
    second = ledger_of(tasks, tmp_path / "cache", resume=True)
    first.owner, second.owner = "elsewhere 10 1", "elsewhere 11 1"
    assert first.claim(2) == ["t0", "t1"]
    assert second.claim(5) == ["t2"]
    with pytest.raises(BatchError, match="elsewhere 10 1 is working on this job"):
        second.forget()
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + LEASE_S - 1)
    first.beat()
    monkeypatch.setattr("time.time", lambda: now + LEASE_S + 1)
    assert first.claim(5) == ["t2"], "the second has not been heard of"
    assert not second.end("t2", Done({}), 1.0), "what was taken over is not recorded twice"
    assert first.end("t2", Done({"found": 1}), 1.0)
    assert first.counts() == {"running": 2, "done": 1}


def test_the_tasks_of_a_process_that_is_gone_are_taken_over_at_once(tmp_path: Path) -> None:
    tasks = many(2, 0.0, tmp_path)
    ledger = ledger_of(tasks, tmp_path / "cache")
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ledger.owner = owner_of(gone.pid)
    assert ledger.claim(2) == ["t0", "t1"]
    ledger.owner = owner_of(os.getpid())
    assert ledger.claim(2) == [], "it is alive"
    gone.communicate(b"\n")
    assert ledger.claim(2) == ["t0", "t1"]


def test_a_job_that_was_started_is_not_started_again_by_mistake(tmp_path: Path) -> None:
    tasks = many(2, 0.0, tmp_path)
    ledger_of(tasks, tmp_path / "cache")
    with pytest.raises(BatchError, match=r"started before; 0 of its 2 tasks.*\n.*--resume"):
        ledger_of(tasks, tmp_path / "cache")


# --------------------------------------------------------------------------------------------------- driver


def test_a_poisoned_task_is_quarantined_and_the_rest_is_done(tmp_path: Path) -> None:
    tasks = [task(n, tmp_path) for n in ("aborts", "a", "refuses", "b", "c")]
    rows = {r.task: r for r in drive(tasks, tmp_path / "cache", tmp_path, crashes=2)}
    assert {n: r.state for n, r in rows.items()} == {
        "aborts": "quarantined",
        "a": "done",
        "refuses": "failed",
        "b": "done",
        "c": "done",
    }
    assert (rows["aborts"].crashes, rows["aborts"].reason) == (2, "its worker was ended by SIGABRT")
    assert "the input is wrong" in rows["refuses"].reason
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    ends = [e["event"] for e in events if e["task"] == "aborts"]
    assert ends == ["task started", "task crashed", "task started", "task quarantined"]


def contents(cache: Path) -> tuple[object, object]:
    """What a store holds, without times and crashes."""
    with open_store(cache) as store:
        tasks = store.connection.execute("SELECT task, state, result, reason FROM tasks ORDER BY place").fetchall()
        runs = store.connection.execute(
            "SELECT runs.digest, program, complete, manifest, name, data FROM runs "
            "JOIN files ON runs.digest = files.digest ORDER BY 1, 5"
        ).fetchall()
    # Tasks that crashed keep the last reason; that they did is the disturbance itself.
    return [row[:3] for row in tasks], runs


def recorded(cache: Path) -> set[str]:
    with open_store(cache) as store:
        return {t for (t,) in store.connection.execute("SELECT task FROM tasks WHERE state = 'done'")}


def children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(p) for p in text.split() if "spawn_main" in Path(f"/proc/{p}/cmdline").read_text()]


def test_a_batch_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    draw = random.Random(1)
    count, calm, rough = 8, tmp_path / "calm", tmp_path / "rough"
    output = tmp_path / "runs"
    output.mkdir()
    drive(many(count, 0.15, output), calm, output, crashes=1000)
    note = output / "started.log"
    note.unlink()
    command = [sys.executable, "-m", "tests.batch_jobs", str(rough), str(output), str(count), "0.15"]
    for kill in ("worker", "driver", "driver", "worker", ""):
        before = recorded(rough) if rough.exists() else set[str]()
        skip = len(note.read_text().split()) if note.exists() else 0
        driver = subprocess.Popen(command)
        if kill:
            wait_for(lambda known=skip: note.exists() and len(note.read_text().split()) > known, driver)
            time.sleep(draw.uniform(0.0, 0.3))
        if kill == "worker" and driver.poll() is None:
            for worker in children(driver.pid)[:1]:
                os.kill(worker, signal.SIGKILL)
            time.sleep(0.5)
        if kill:
            driver.kill()
        assert driver.wait(60) in {0, -signal.SIGKILL}
        started = note.read_text().split()[skip:]
        assert not before & set(started), "nothing that was recorded is done again"
    assert contents(rough) == contents(calm)
    assert recorded(rough) == {f"t{i}" for i in range(count)}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_workers_end_with_their_driver(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    command = [sys.executable, "-m", "tests.batch_jobs", str(tmp_path), str(tmp_path / "runs"), "2", "300"]
    driver = subprocess.Popen(command)
    wait_for((tmp_path / "runs" / "started.log").exists, driver)
    workers = children(driver.pid)
    assert len(workers) == 2
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 20
    while any(_running(w) for w in workers):
        assert time.monotonic() < deadline, "a worker is left behind"
        time.sleep(0.1)


def _running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


# ------------------------------------------------------------------------------------------------- commands


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prism", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    code = left.value.code
    return code if isinstance(code, int) else 0


def test_a_dry_run_lists_the_tasks(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "batch", str(job), "--dry-run", "--json") == 0
    assert [t["name"] for t in json.loads(capsys.readouterr().out)] == [t.name for t in read_job(job)[1]]
    assert not (job.parent / "runs").exists()
    job.write_text("[batch]\nefort = 1\n")
    assert command(monkeypatch, "batch", str(job), "--dry-run") == 2
    assert "line 2: batch.efort" in capsys.readouterr().err


def test_a_batch_runs_resumes_and_says_so(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRISM_CACHE_DIR", str(job.parent / "cache"))
    job.write_text(JOB.replace('"h200", "a100"', '"h200"').replace("[0, 1]", "[0]") + 'constant = ["wrong"]\n')
    ask = ("batch", str(job), "--device", "null")
    assert command(monkeypatch, *ask) == 1
    shown = capsys.readouterr()
    assert "second-0-b200-3: failed" in shown.out
    assert "wrong" in shown.out
    assert "2 done, 1 failed" in shown.out
    assert "[3/3]" in shown.err
    assert command(monkeypatch, *ask) == 2
    assert "--resume" in capsys.readouterr().err
    assert command(monkeypatch, *ask, "--resume", "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert [r["state"] for r in rows] == ["done", "done", "failed"]
    assert rows[0]["result"]["status"] == "captured"
