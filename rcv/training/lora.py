"""LoRA of a run's attention projections: what a plain Stable Diffusion pipeline can take of an adapter."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from rcv.training.disk import writing
from rcv.video import replacing

LORA_FILE = "pytorch_lora_weights.safetensors"


class LoraExport(NamedTuple):
    """What an export kept.

    `path`: the file. `rank`: the largest of a layer. `kept`: share of the changes' squared norm that the ranks hold.
    `layers`: layers in it. `left_out`: trained weights that no LoRA of the 2D UNet can hold, by state-dict key.
    """

    path: Path
    rank: int
    kept: float
    layers: int
    left_out: list[str]


def low_rank(change, rank):
    """Return (down [r,in], up [out,r]): up @ down is the best approximation of `change` [out,in] of rank r.

    By the truncated singular value decomposition (Eckart and Young), in float64; the singular values' roots go to both,
    so that they are of the same size. r is `rank`, or all that the matrix has where that is less.
    """
    u, s, vh = torch.linalg.svd(change.double(), full_matrices=False)
    root = s[:rank].sqrt()
    return root[:, None] * vh[:rank], u[:, :rank] * root


def export_lora(before, after, folder, rank=None, description=None):
    """Write the change of a UNet's linear layers as a LoRA that diffusers' `load_lora_weights` reads.

    Parameters
    ----------
    before : dict of str to Tensor
        The 2D UNet's state dict, or as much of it as was trained.
    after : dict of str to Tensor
        The trained weights; those that `before` lacks are left out.
    folder : path
        Gets pytorch_lora_weights.safetensors in PEFT's layout (`unet.LAYER.lora_A.weight`), float32, scale 1.
    rank : int, optional
        Largest rank of a layer; None for all of it, which is exact.
    description : dict, optional
        JSON values for the file's metadata.

    Returns
    -------
    LoraExport

    Raises
    ------
    ValueError
        A rank below 1; no layer in common.
    OutputError
        The file cannot be written.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"rank is {rank}, expected 1 or more")
    tensors, left_out, ranks = {}, [], []
    total = lost = 0.0
    for name, trained in after.items():
        if name not in before or trained.ndim != 2:
            left_out.append(name)
            continue
        change = trained.double().cpu() - before[name].double().cpu()
        down, up = low_rank(change, rank)
        layer = f"unet.{name.removesuffix('.weight')}"
        tensors[f"{layer}.lora_A.weight"] = down.float().contiguous()
        tensors[f"{layer}.lora_B.weight"] = up.float().contiguous()
        ranks.append(len(down))
        total += change.square().sum().item()
        lost += (change - up @ down).square().sum().item()
    if not tensors:
        raise ValueError(
            "none of the trained weights is one of the 2D UNet's: there is nothing for a LoRA to hold"
        )
    path = Path(folder) / LORA_FILE
    with writing(path), replacing(path) as part:
        save_file(tensors, part, metadata={"format": "pt", "description": json.dumps(description or {})})
    kept = 1.0 - lost / total if total else 1.0
    return LoraExport(path, max(ranks), kept, len(ranks), left_out)
