"""A tiled matrix product with ragged edges, as lowering prints them: a fixture for the Triton runtime's tests."""

# pyright: basic, reportIndexIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
# ruff: noqa: N803, PLR0917

import torch
import triton
import triton.language as tl

DEFAULT = {"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 32, "num_warps": 4, "num_stages": 3}


@triton.jit
def matmul(
    x_ptr,
    w_ptr,
    y_ptr,
    M,
    K: tl.constexpr,
    N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    col = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        x = tl.load(x_ptr + row[:, None] * K + k[None, :], mask=(row[:, None] < M) & (k[None, :] < K), other=0.0)
        w = tl.load(w_ptr + k[:, None] * N + col[None, :], mask=(k[:, None] < K) & (col[None, :] < N), other=0.0)
        acc = tl.dot(x, w, acc, input_precision="ieee")
    y = acc.to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + row[:, None] * N + col[None, :], y, mask=(row[:, None] < M) & (col[None, :] < N))


def launch(x, w, *, config=None):
    config = DEFAULT | (config or {})
    (m, k), n = x.shape, w.shape[1]
    if w.shape[0] != k:
        raise ValueError(f"x has {k} columns and w {w.shape[0]} rows")
    y = torch.empty((m, n), dtype=x.dtype, device=x.device)

    def grid(meta):
        return triton.cdiv(m, meta["BLOCK_M"]), triton.cdiv(n, meta["BLOCK_N"])

    matmul[grid](x, w, y, m, k, n, **config)
    return y
