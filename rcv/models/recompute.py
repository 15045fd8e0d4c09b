"""What the backward of a video UNet computes again instead of finding it kept."""

import functools

import torch
from diffusers.models import Transformer2DModel
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from rcv.config import checked_name
from rcv.models.offload import OffloadedTensors

MODES = {
    "none": "keeps what the backward reads, but for norms and feed-forward layers, which keep their input alone",
    "selective": "keeps of a transformer block its input, what attention returned, and the feed-forward layer's input",
    "full": "keeps the inputs of blocks, as diffusers' enable_gradient_checkpointing does",
    "offload": "keeps the inputs of blocks and of the parts of transformer blocks, in main memory",
}
"""Modes of gradient checkpointing, the fastest first."""

# Attention is the one part of a block whose cost grows with the square of its tokens.
_KEPT = frozenset({torch.ops.rcv.frame_attention.default, torch.ops.rcv.temporal_attention.default})


def set_gradient_checkpointing(unet, mode):
    """Let the training steps of a VideoUNet recompute as MODES says.

    Raises
    ------
    ValueError
        For an unknown mode.
    """
    checked_name("gradient checkpointing", mode, MODES)
    if unet.offloaded is not None:
        unet.offloaded.detach()
    unet.offloaded = OffloadedTensors().attach(unet) if mode == "offload" else None
    if mode in ("full", "offload"):
        unet.enable_gradient_checkpointing()
    else:
        unet.disable_gradient_checkpointing()
    recompute_in_blocks(unet, {"selective": keeping_attention, "offload": keeping_inputs}.get(mode))


def recompute_in_blocks(unet, recomputing):
    """Let parts of transformer blocks run by `recomputing`, one of the functions below; None recomputes nothing."""
    for module in unet.modules():
        if hasattr(module, "recomputing"):
            module.recomputing = recomputing
        if hasattr(module, "keeps_tokens"):  # whose keys and values the block computes again with the rest
            module.keeps_tokens = recomputing is None
        if isinstance(module, Transformer2DModel) and recomputing is not None:
            module.gradient_checkpointing = False  # of whole blocks


def pinning_checkpoint(frames, function=None):
    """Return what diffusers' blocks call to be checkpointed: each module sees the FrameCount of its own forward.

    Parameters
    ----------
    frames : FrameCount
    function : callable, optional
        In place of PyTorch's checkpoint.
    """
    function = function or functools.partial(checkpoint, use_reentrant=False)
    return lambda module, *args: function(frames.pinning(module), *args)


def keeping_attention(function, *args):
    """Return ``function(*args)``; of it the backward finds `args` and what attention returned, nothing else.

    Norms, projections and the recurrent state are computed again (selective activation recomputation, Korthikanti et
    al. 2022), which takes a few percent of a training step. Nothing in `function` may draw random numbers.
    """
    return checkpoint(
        function, *args, use_reentrant=False, preserve_rng_state=False, context_fn=_KEEPING_ATTENTION
    )


def keeping_inputs(function, *args):
    """Return ``function(*args)``; of it the backward finds `args` alone. No random numbers in `function`."""
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)


def _policy(ctx, operation, *args, **kwargs):
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE


_KEEPING_ATTENTION = functools.partial(create_selective_checkpoint_contexts, _policy)
