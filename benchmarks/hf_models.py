"""Small randomly initialised models of the ``transformers`` library, one per family, to try capture on.

Weights are random and sizes tiny: what counts is which operators a family's layers consist of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

HIDDEN: Final = 64
HEADS: Final = 4
TOKENS: Final = 12

_COMMON: Final[Mapping[str, object]] = {
    "vocab_size": 96,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
_GROUPED: Final[Mapping[str, object]] = {**_COMMON, "num_key_value_heads": 2, "head_dim": HIDDEN // HEADS}

FAMILIES: Final[Mapping[str, Mapping[str, object]]] = {
    "llama": _GROUPED,
    "qwen3": _GROUPED,
    "mistral": _GROUPED,
    "gemma2": _GROUPED,
    "phi3": {**_COMMON, "num_key_value_heads": 2, "pad_token_id": 0},
    "gpt_neox": _COMMON,
    "opt": {
        "vocab_size": 96,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "ffn_dim": 128,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": HIDDEN,
    },
    "bert": _COMMON,
    "mixtral": {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
}
"""Sizes of each family's model, by its name in ``transformers``."""


def model(family: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A model of two layers without its head, and the tokens to call it with.

    The model is wrapped as a function from tokens to the last hidden state.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **FAMILIES[family])
    config.use_cache = False
    attention = "eager" if family == "gemma2" else "sdpa"  # it caps scores, which SDPA cannot
    built = transformers.AutoModel.from_config(config, attn_implementation=attention).eval()

    def hidden(tokens: torch.Tensor) -> Any:
        return built(input_ids=tokens).last_hidden_state

    hidden.__name__ = family
    return hidden, (torch.randint(1, 96, (2, TOKENS)),)
