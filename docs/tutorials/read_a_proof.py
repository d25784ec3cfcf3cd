# %% [markdown]
# # Read a proof
#
# `prism.prove` is useful without any search: it says whether two torch functions are the same function, for all
# inputs, and for all sizes unless it says otherwise.

# %%
import torch

import prism


def reference(x: torch.Tensor, gain: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Normalise, then project."""
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * gain) @ weight


def folded(x: torch.Tensor, gain: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Project first, and scale the rows of the result."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    return (x @ (gain[:, None] * weight)) * scale


inputs = (torch.randn(8, 64), torch.randn(64), torch.randn(64, 48))
verdict = prism.prove(reference, folded, *inputs)
print(verdict)
assert verdict.status == "proved"

# %% [markdown]
# The facts are what the proof needed besides algebra: here that the sum under the root is positive.

# %%
for fact in verdict.facts:
    print("-", fact)

# %% [markdown]
# A mistake that tests with random inputs can miss: the norm without its `mean`. It is refuted with numbers, as Python
# text that can be pasted.


# %%
def without_mean(x: torch.Tensor, gain: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The mean has become a sum."""
    scale = torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
    return (x @ (gain[:, None] * weight)) * scale


wrong = prism.prove(reference, without_mean, *inputs)
print(wrong.status)
print(wrong.counterexample)
assert wrong.status == "refuted"

# %% [markdown]
# The first function is the specification: where it is undefined, the second may do anything, and not the other way
# round. `x * x / x` may become `x`; `x` may not become `x * x / x`, which is undefined at 0.


# %%
def quotient(x: torch.Tensor) -> torch.Tensor:
    """Undefined where an element is zero."""
    return x * x / x


def plain(x: torch.Tensor) -> torch.Tensor:
    """Defined everywhere."""
    return x * 1.0


assert prism.prove(quotient, plain, inputs[0]).status == "proved"
assert prism.prove(plain, quotient, inputs[0]).status != "proved"
