"""Prompts to text embeddings, as Stable Diffusion 1.x and 2.x do."""

from __future__ import annotations

import torch
from diffusers.utils import logging

logger = logging.get_logger(__name__)


def embed_text(
    tokenizer, text_encoder, prompts: list[str], device: torch.device, clip_skip: int | None = None
) -> torch.Tensor:
    """Hidden states of the text encoder, [len(prompts), L, c], L the tokenizer's full length.

    `clip_skip` = k takes the hidden state before the last k layers (normalised as the last one is); None the last.
    A prompt that is too long is cut, with a warning that quotes what was dropped.
    """
    length = tokenizer.model_max_length
    tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    for prompt, ids in zip(prompts, tokenizer(prompts).input_ids, strict=True):
        if len(ids) > length:
            dropped = tokenizer.decode(ids[length - 1 : -1])
            logger.warning(
                f"prompt {prompt!r} is longer than the {length} tokens of the model; dropped: {dropped!r}"
            )
    mask = (
        tokens.attention_mask.to(device)
        if getattr(text_encoder.config, "use_attention_mask", False)
        else None
    )
    output = text_encoder(
        tokens.input_ids.to(device), attention_mask=mask, output_hidden_states=clip_skip is not None
    )
    if clip_skip is None:
        return output[0]
    # transformers 5 has no text_model between CLIPTextModel and its layers
    inner = getattr(text_encoder, "text_model", text_encoder)
    return inner.final_layer_norm(output.hidden_states[-(clip_skip + 1)])
