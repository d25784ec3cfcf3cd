"""Operations as a repository of the ``kernels`` package: one folder per backend under ``build/``.

Layout and metadata are those that ``kernels`` 0.17 loads (``kernels.get_local_kernel``). Triton sources need no build,
so there is one version for CUDA and one for the CPU with the same files. The name of the torch operations carries a
hash of the contents, because several versions of one repository may be loaded side by side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from prism.export.manifest import Manifest, digest
from prism.export.operations import Operation
from prism.export.package import package_files

BACKENDS: Final = ("cuda", "cpu")
NO_LICENSE: Final = "other"
"""What the metadata says where the user states no license."""


def hf_kernels_files(operations: Sequence[Operation], name: str, license_name: str = "") -> Mapping[str, str]:
    """The repository's files by path: the package once per backend, its tests and its README beside them."""
    plain = package_files(operations, name, license_name).texts
    mark = digest("".join(f"{p}\0{t}\0" for p, t in sorted(plain.items())).encode())[:12]
    package = package_files(operations, name, license_name, namespace=f"{name}_{mark}")
    own = {p.removeprefix(f"{name}/"): t for p, t in package.texts.items() if p.startswith(f"{name}/")}
    del own["manifest.json"]
    texts = {"README.md": _readme(package.texts["README.md"], name)}
    for backend in BACKENDS:
        folder = f"build/torch-{backend}"
        texts[f"{folder}/metadata.json"] = _metadata(name, mark, backend, license_name)
        texts |= {f"{folder}/{path}": text for path, text in own.items()}
    artifacts = [artifact.moved(f"{name}/", f"build/torch-{BACKENDS[0]}/") for artifact in package.manifest.artifacts]
    return {**texts, "manifest.json": Manifest.of(name, texts, artifacts).to_json()}


def _metadata(name: str, mark: str, backend: str, license_name: str) -> str:
    record = {
        "id": f"{name}_{backend}_{mark}",
        "name": name.replace("_", "-"),
        "version": 1,
        "license": license_name or NO_LICENSE,
        "python-depends": [],
        "backend": {"type": backend},
    }
    return json.dumps(record, indent=2) + "\n"


def _readme(text: str, name: str) -> str:
    load = f'from kernels import get_local_kernel\n\n{name} = get_local_kernel("{name}", ".")'
    return text.replace(f"import {name}", load, 1)
