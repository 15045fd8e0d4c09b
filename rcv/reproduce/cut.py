"""Cutting the memory off at inference: what a trained recurrence contributes."""

import torch

from rcv.config import checked_name
from rcv.models.recurrence import Memory

CUTS = ("readout", "reset")


def cut_memory(unet, cut):
    """Take something away from every memory of a trained VideoUNet, for good.

    Parameters
    ----------
    unet : rcv.models.VideoUNet
    cut : str
        "readout": W_ho and b_a become zero, so that memory tokens are their base alone (with base "former", the former
        frame's tokens: Tune-A-Video's attention). "reset": the state that a frame's memory is read from has seen the
        frame before alone.

    Raises
    ------
    ValueError
        For another cut, or a preset without a memory that can be cut so.
    """
    checked_name("cut", cut, CUTS)
    memories = [module for module in unet.modules() if isinstance(module, Memory)]
    if not memories:
        raise ValueError(f"cut is {cut!r}, but preset {unet.preset.name!r} has no memory")
    if cut == "reset" and unet.preset.drive != "input":
        raise ValueError(
            f"cut is 'reset', which needs drive 'input'; preset {unet.preset.name!r} has 'feedback'"
        )
    for memory in memories:
        if cut == "readout":
            with torch.no_grad():
                memory.w_ho.weight.zero_()
                memory.w_ho.bias.zero_()
        else:
            memory.forward = _forgetting(memory.forward)


def _forgetting(forward):
    """A cell's forward whose frames don't know of each other: each begins without a state."""

    def forget(u, h0=None):
        states = forward(u.flatten(0, 1).unsqueeze(1))[0]
        states = states.squeeze(1).unflatten(0, u.shape[:2])
        return states, states[:, -1].float()

    return forget
