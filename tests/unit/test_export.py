"""Exported libraries: they install, check themselves, say what they are, and are noticed to be changed."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import prism
from autotune.torch_printer import print_torch
from prism.cli import app
from prism.export import export_runs
from prism.export.operations import gather
from prism.export.package import package_files
from prism.export.reference import in_float64, of_any_extent, unfused
from prism.saved import SavedRun, read_run
from prism.verifying import verify_path
from sgraph.axis import Size
from sgraph.errors import InputError, NothingToExport, PrismError, UnknownTarget
from verify.recheck import Finding, Outcome

EPS = 1e-6


def scaled_norm(x: torch.Tensor, r: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    h = x + r
    return h, h * torch.rsqrt(h.square().mean(-1, keepdim=True) + EPS) * g


def inputs(rows: int = 8) -> tuple[torch.Tensor, ...]:
    random_numbers = torch.Generator().manual_seed(rows)
    shapes = ((rows, 64), (rows, 64), (64,))
    return tuple(torch.randn(s, generator=random_numbers).bfloat16() for s in shapes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run for a GPU that is not here."""
    path = tmp_path_factory.mktemp("runs") / "norm"
    rows = Size("M", 1, 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRISM_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        sizes = {"x": (rows, 64), "r": (rows, 64)}
        prism.superoptimize(scaled_norm, *inputs(), target="h200", effort="quick", out=path, sizes=sizes)
    return path


@pytest.fixture(scope="module")
def run(folder: Path) -> SavedRun:
    return read_run(folder)


@pytest.fixture
def exported(folder: Path, tmp_path: Path) -> Path:
    out = tmp_path / "library"
    export_runs([folder], out, "norm_kernels")
    return out


@pytest.fixture
def imported(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(exported)  # pyright: ignore[reportUnknownMemberType]
    module = importlib.import_module("norm_kernels")
    yield module
    # The torch library ends with the module: several tests define the same operations.
    importlib.import_module("norm_kernels._dispatch").LIBRARY._destroy()
    for name in [n for n in sys.modules if n.split(".")[0] == "norm_kernels"]:
        del sys.modules[name]


def with_report(run: SavedRun, **changes: object) -> SavedRun:
    return dataclasses.replace(run, report=run.report.model_copy(update=changes))


def _sum_of_squares(results: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([y.float().square().sum() for y in results]).sum()


def _is_capability(major: int) -> Callable[[object], tuple[int, int]]:
    return lambda device: (major, 0)


# ------------------------------------------------------------------------------------------------ the package


def test_the_package_passes_its_own_tests(exported: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "TRITON_INTERPRET"}}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    found = subprocess.run(command, cwd=exported, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-3000:]
    assert "4 passed" in found.stdout


def test_the_kernel_file_is_the_text_that_was_checked(exported: Path, folder: Path) -> None:
    kernel = (exported / "norm_kernels" / "scaled_norm_h200.py").read_text()
    assert kernel == (folder / "kernel.py").read_text()


def test_nothing_but_torch_and_triton_is_imported(exported: Path) -> None:
    allowed = {"torch", "triton", "triton.language", "torch.nn.functional"}
    standard = set(sys.stdlib_module_names)
    for file in (exported / "norm_kernels").glob("*.py"):
        for line in file.read_text().splitlines():
            if line.startswith("import "):
                name = line.split()[1]
                assert name in allowed or name in standard, f"{file.name}: {line}"
            elif line.startswith("from ") and " import " in line:
                name = line.split()[1]
                assert name.startswith(".") or name.split(".")[0] in standard, f"{file.name}: {line}"


def test_files_say_nothing_of_the_machine(exported: Path) -> None:
    here = str(Path(__file__).parent)
    for file in exported.rglob("*"):
        if file.is_file():
            assert here not in file.read_text(), file


def test_cpu_tensors_run_the_torch_program(imported: object) -> None:
    got = imported.scaled_norm(*inputs())  # type: ignore[attr-defined]
    for result, expected in zip(got, scaled_norm(*inputs()), strict=True):
        torch.testing.assert_close(result, expected, rtol=2e-2, atol=2e-2)


def test_gradients_are_those_of_the_program(imported: object) -> None:
    given = [t.float().requires_grad_() for t in inputs()]
    halves = [t.bfloat16() for t in given]
    results = imported.scaled_norm(*halves)  # type: ignore[attr-defined]
    got = torch.autograd.grad(_sum_of_squares(results), given)
    expected = torch.autograd.grad(_sum_of_squares(scaled_norm(*given)), given)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=5e-2, atol=5e-1)


def test_a_call_explains_itself(imported: object) -> None:
    operation = imported.OPERATIONS["scaled_norm"]  # type: ignore[attr-defined]
    assert "because the tensors are on cpu" in operation.explain(*inputs())
    chosen, reason = None, ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_capability", _is_capability(8))
        chosen, reason = operation.choose(torch.device("cuda"), {"k": 64, "m": 8})
        assert chosen is None
        assert "compute capability 8.0" in reason
        patch.setattr(torch.cuda, "get_device_capability", _is_capability(9))
        axis = next(iter(operation.symbols))
        fixed = next(iter(operation.fixed))
        chosen, _ = operation.choose(torch.device("cuda"), {axis: 8, fixed: 64})
        assert chosen.module == "scaled_norm_h200"
        chosen, reason = operation.choose(torch.device("cuda"), {axis: 65, fixed: 64})
        assert chosen is None
        assert "65 is not a multiple of 1 from 1 to 64" in reason


def test_the_nearest_sizes_are_chosen(run: SavedRun, tmp_path: Path) -> None:
    wide = [r.model_copy(update={"shape": (64, *r.shape[1:]) if len(r.shape) > 1 else r.shape}) for r in run.inputs]
    other = dataclasses.replace(run, manifest=run.manifest.model_copy(update={"inputs": tuple(wide)}))
    texts = package_files(gather([run, other]), "two").texts
    modules = sorted(p for p in texts if p.startswith("two/scaled_norm_"))
    assert len(modules) == 2, modules
    assert "64" in modules[0]


def test_a_cpu_run_ships_its_torch_form(run: SavedRun) -> None:
    assert run.graph is not None
    manifest = run.manifest.model_copy(update={"mode": "eager", "target": "cpu"})
    text = print_torch(run.graph)
    on_cpu = dataclasses.replace(with_report(run, target="cpu"), manifest=manifest, torch_source=text, source="")
    texts = package_files(gather([run, on_cpu]), "both").texts
    operation = texts["both/scaled_norm.py"]
    compile(operation, "both", "exec")
    assert "def found_on_cpu(" in operation
    assert "on_cpu=found_on_cpu" in operation
    assert operation.count("Tuned(") == 1, "the CPU has no kernel to launch"


def test_the_truth_is_the_program_in_float64_at_any_extent(run: SavedRun) -> None:
    assert run.graph is not None
    text = unfused(in_float64(of_any_extent(run.graph.program)))
    assert "64" not in text.split("def run")[1].replace("float64", ""), "no extent is written down"
    scope: dict[str, object] = {}
    exec(text, scope)
    given = [torch.randn(3, 5).double(), torch.randn(3, 5).double(), torch.randn(5).double()]
    for got, expected in zip(scope["run"](*given), scaled_norm(*given), strict=True):  # type: ignore[operator]
        torch.testing.assert_close(got, expected)


# ------------------------------------------------------------------------------------------- other formats


def test_flashinfer_definitions_and_solutions(folder: Path, tmp_path: Path) -> None:
    texts = export_runs([folder], tmp_path / "trace", "team", form="flashinfer")
    definition = json.loads(texts["definitions/prism/scaled_norm.json"])
    solution = json.loads(texts["solutions/prism/scaled_norm/scaled_norm_h200.json"])
    assert {a["type"] for a in definition["axes"].values()} == {"const", "var"}
    assert all(set(t["shape"]) <= set(definition["axes"]) for t in definition["inputs"].values())
    assert "def run(" in definition["reference"]
    assert solution["definition"] == definition["name"]
    assert solution["spec"]["entry_point"].split("::")[0] == solution["sources"][0]["path"]
    data = pytest.importorskip("flashinfer_bench.data", reason="flashinfer-bench is not installed")
    data.Definition.model_validate(definition)
    data.Solution.model_validate(solution)


def test_a_repository_of_the_kernels_package(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    texts = export_runs([folder], out, "team_kernels", form="hf-kernels", license_name="MIT")
    metadata = json.loads(texts["build/torch-cuda/metadata.json"])
    assert metadata["name"] == "team-kernels"
    assert metadata["license"] == "MIT"
    assert metadata["id"] != json.loads(texts["build/torch-cpu/metadata.json"])["id"]
    assert verify_path(out).outcome is Outcome.PASSED
    kernels = pytest.importorskip("kernels.load", reason="kernels is not installed")
    module = kernels.get_local_kernel(out)
    assert len(module.scaled_norm(*inputs())) == 2


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["torch", "json", "Kernels", "my-kernels", "class", "_x", "", "a.b", "../up"])
def test_names_that_no_package_can_have(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"identifier|another module"):
        export_runs([folder], tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_what_is_not_proved_and_checked_is_not_shipped(run: SavedRun) -> None:
    report = run.report
    assert report.verdict is not None
    assert report.accuracy is not None
    assert report.exact is not None
    unproved = report.verdict.model_copy(update={"status": "unknown"})
    inaccurate = report.accuracy.model_copy(update={"passed": False})
    inexact = report.exact.model_copy(update={"passed": False})
    baseline = report.best.model_copy(update={"kind": "baseline", "name": "eager"}) if report.best else None
    for changed, reason in (
        (with_report(run, verdict=unproved), "not proved"),
        (with_report(run, accuracy=inaccurate), "numerical contract"),
        (with_report(run, accuracy=None), "numerical contract"),
        (with_report(run, exact=inexact), "exact evaluation"),
        (with_report(run, best=baseline), "eager was the fastest"),
        (dataclasses.replace(run, source=""), "exact evaluation"),
    ):
        with pytest.raises(NothingToExport, match=reason):
            gather([changed])
    with pytest.raises(UnknownTarget):
        gather([with_report(run, target="h900")])


def test_runs_that_clash(run: SavedRun, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two kernels of scaled_norm"):
        gather([run, run])
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something already"):
        export_runs([folder], full, "kernels_of_mine")
    assert [p.name for p in full.iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match="no run here"):
        export_runs([full], tmp_path / "out", "kernels_of_mine")
    with pytest.raises(InputError, match="no format"):
        export_runs([folder], tmp_path / "out", "kernels_of_mine", form="wheel")


# ------------------------------------------------------------------------------------------------ verifying


def test_runs_and_exports_verify(folder: Path, exported: Path) -> None:
    for path in (folder, exported, exported / "norm_kernels"):
        found = verify_path(path, seed=3)
        assert found.outcome is Outcome.PASSED, found
        checks = {f.check for s in found.subjects for f in s.findings}
        assert {"proof", "certificate", "exact evaluation"} <= checks


def test_an_installed_package_has_no_tests(exported: Path) -> None:
    for name in ("tests/cases.py", "tests/conftest.py", "tests/reference.py", "tests/test_kernels.py", "README.md"):
        (exported / name).unlink()
    assert verify_path(exported).outcome is Outcome.FAILED, "pyproject.toml is here, so the others are missed"
    (exported / "pyproject.toml").unlink()
    assert verify_path(exported).outcome is Outcome.PASSED


def test_a_wrong_kernel_is_found_even_with_a_new_hash(exported: Path) -> None:
    kernel = exported / "norm_kernels" / "scaled_norm_h200.py"
    text = kernel.read_text()
    assert "1e-06" in text
    kernel.write_text(text.replace("1e-06", "1e-05"))
    manifest = exported / "norm_kernels" / "manifest.json"
    record = json.loads(manifest.read_text())
    from prism.export.manifest import digest

    record["files"]["norm_kernels/scaled_norm_h200.py"] = digest(kernel.read_bytes())
    manifest.write_text(json.dumps(record))
    found = verify_path(exported)
    assert found.outcome is Outcome.FAILED
    assert [f.check for s in found.subjects for f in s.findings if f.outcome is Outcome.FAILED] == ["exact evaluation"]


def heads(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    batch, length, width = x.shape
    split = x.view(batch, length, 2, width // 2)
    normed = split * torch.rsqrt(split.square().mean(-1, keepdim=True) + EPS)
    return normed.reshape(batch * length, width) @ weight


def test_views_of_inputs_are_shipped_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISM_CACHE_DIR", str(tmp_path / "cache"))
    run, out = tmp_path / "run", tmp_path / "out"
    given = torch.randn(2, 3, 32), torch.randn(32, 16)
    prism.superoptimize(heads, *given, target="h200", effort="quick", out=run, fallback=False)
    texts = export_runs([run], out, "head_kernels")
    assert 'outputs={"out": (("' in texts["head_kernels/heads.py"], "the result merges two axes"
    assert verify_path(out).outcome is Outcome.PASSED
    kernel = out / "head_kernels" / "heads_h200.py"
    assert "flatten" in kernel.read_text()
    kernel.write_text(
        re.sub(r"w(eight)?\.unflatten\(0, \((\d+), (\d+)\)\)", r"weight.unflatten(0, (\3, \2))", kernel.read_text())
    )
    found = [f for s in verify_path(out).subjects for f in s.findings if f.outcome is not Outcome.PASSED]
    assert [(f.check, f.outcome) for f in found] == [("hashes", Outcome.FAILED), ("views", Outcome.UNKNOWN)]


def test_code_in_a_kernel_file_is_never_run(exported: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    kernel = exported / "norm_kernels" / "scaled_norm_h200.py"
    kernel.write_text(f"open({str(trap)!r}, 'w').close()\n" + kernel.read_text())
    sgraph = exported / "norm_kernels" / "evidence" / "scaled_norm_h200.sgraph.txt"
    sgraph.write_text(sgraph.read_text() + f"\n__import__('pathlib').Path({str(trap)!r}).touch()\n")
    assert verify_path(exported).outcome is Outcome.FAILED
    assert not trap.exists()


def test_a_certificate_of_something_else_is_noticed(exported: Path) -> None:
    path = exported / "norm_kernels" / "evidence" / "scaled_norm_h200.certificate.json"
    record = json.loads(path.read_text())
    record["equations"][0]["candidate_digest"] = "00" * 16
    path.write_text(json.dumps(record))
    failed = [f for s in verify_path(exported).subjects for f in s.findings if f.outcome is Outcome.FAILED]
    assert {f.check for f in failed} == {"hashes", "certificate"}


def test_a_hundred_corruptions_are_all_noticed(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unchecked(*given: object) -> Iterator[Finding]:  # hashes alone have to notice
        return iter(())

    monkeypatch.setattr("prism.verifying._artifact", unchecked)
    numbers = random.Random(0)
    files = sorted(p for p in exported.rglob("*") if p.is_file())
    for _ in range(100):
        victim = numbers.choice(files)
        good = victim.read_bytes()
        spoiled = bytearray(good)
        match numbers.randrange(4):
            case 0:
                spoiled[numbers.randrange(len(spoiled))] ^= 1 << numbers.randrange(8)
            case 1:
                del spoiled[numbers.randrange(len(spoiled)) :]
            case 2:
                spoiled += b"\x80\x04\x95\0\0"
            case _:
                spoiled[:] = numbers.randbytes(64)
        victim.write_bytes(spoiled)
        try:
            assert verify_path(exported).outcome is Outcome.FAILED, victim
        except PrismError as error:
            assert victim.name == "manifest.json", error
        victim.write_bytes(good)
    assert verify_path(exported).outcome is Outcome.PASSED


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "norm_kernels\\x", "a/../../b"])
def test_paths_out_of_the_folder_are_refused(exported: Path, path: str) -> None:
    manifest = exported / "norm_kernels" / "manifest.json"
    record = json.loads(manifest.read_text())
    record["files"][path] = "0" * 64
    manifest.write_text(json.dumps(record))
    with pytest.raises(InputError, match="outside of the folder"):
        verify_path(exported)


def test_strangers_and_links_are_noticed(exported: Path, tmp_path: Path) -> None:
    (exported / "norm_kernels" / "extra.py").write_text("x = 1\n")
    assert verify_path(exported).outcome is Outcome.FAILED
    (exported / "norm_kernels" / "extra.py").unlink()
    readme = exported / "README.md"
    kept = tmp_path / "kept.md"
    readme.rename(kept)
    readme.symlink_to(kept)
    assert verify_path(exported).outcome is Outcome.FAILED


def test_the_commands(folder: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    out = tmp_path / "out"
    shipped = runner.invoke(app, ["export", str(folder), "--out", str(out), "--name", "cli_kernels", "--json"])
    assert shipped.exit_code == 0, shipped.output
    assert "cli_kernels/manifest.json" in json.loads(shipped.output)["files"]
    checked = runner.invoke(app, ["verify", str(out), "--json", "--seed", "1"])
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.output)["outcome"] == "passed"
    (out / "README.md").write_text("changed")
    assert runner.invoke(app, ["verify", str(out)]).exit_code == 1
    with pytest.raises(InputError, match="nothing here"):
        runner.invoke(app, ["verify", str(tmp_path / "none")], catch_exceptions=False)
