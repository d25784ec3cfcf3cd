"""Small twins: what a check at small extents has to show."""

from __future__ import annotations

import pytest

from autotune.twin import CELLS, MOST_STEPS, TILE, TWO_TILES, small_config, small_sizes
from rewrites.saturate import saturate
from sgraph.generate import SearchLimits, generate
from sgraph.ir import Role
from tests.programs import H200, LARGE, PROGRAMS, sizes_of


@pytest.mark.parametrize("name", ["attention", "rmsnorm_linear", "softmax", "lora"])
def test_what_is_accumulated_takes_several_tiles(name: str) -> None:
    """One tile, or one cell, would show neither a lost rescaling nor a narrow partial result."""
    program = PROGRAMS[name](LARGE)
    table = saturate([o.value for o in program.outputs])
    real = sizes_of(program)
    families = generate(program, table, H200, real, SearchLimits(families=40)).families
    assert families
    for family in families:
        sizes = small_sizes(real, family.graph)
        config = small_config(family.graph, sizes)
        for i, kernel in enumerate(family.graph.kernels):
            tiles = config[f"kernel_{i}"]
            for axis in (*kernel.with_role(Role.LOOP), *kernel.with_role(Role.SPLIT)):
                tile = tiles.get(f"tile_{axis}", TILE)
                assert sizes[axis.name] > tile or sizes[axis.name] == real[axis.base], f"{axis} of\n{family.graph}"
            if kernel.with_role(Role.SPLIT):
                assert tiles["split"] == CELLS


def test_the_limits_are_what_they_say() -> None:
    assert TILE < TWO_TILES < 2 * TILE
    assert MOST_STEPS > CELLS
