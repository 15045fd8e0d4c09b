"""Optical flow by torchvision's RAFT, where torchvision and a file of its weights are at hand."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

LEAST_SIDE = 128
"""Smaller frames are enlarged, by a whole factor: RAFT compares maps of an eighth of the size over four levels."""


class RaftFlow:
    """RAFT (Teed and Deng, 2020) as torchvision has it; called with two uint8 [H,W,3] frames.

    Parameters
    ----------
    weights : path
        State dictionary of `raft_large` or `raft_small`, such as raft_large_C_T_SKHT_V2-ff5fadd5.pth.

    Raises
    ------
    ImportError
        torchvision is not installed.
    FileNotFoundError, ValueError
        No such file, or not RAFT's weights.
    """

    def __init__(self, weights, device="cpu"):
        try:
            from torchvision.models.optical_flow import raft_large, raft_small
        except ImportError as error:
            raise ImportError(
                "flow by RAFT needs torchvision, which is not installed here; --flow dis needs no weights"
            ) from error
        weights = Path(weights)
        if not weights.is_file():
            raise FileNotFoundError(f"{weights}: no such file of RAFT's weights")
        state = torch.load(weights, map_location="cpu", weights_only=True)
        small = "mask_predictor.convrelu.0.weight" not in state
        self.name = "RAFT small" if small else "RAFT large"
        self.model = (raft_small if small else raft_large)(weights=None)
        try:
            self.model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{weights} does not hold RAFT's weights: {error}") from None
        self.model.eval().to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, first, second):
        """Return the flow from `first` to `second`: float32 [H,W,2], pixels to the right and down."""
        height, width = first.shape[:2]
        factor = -(-LEAST_SIDE // min(height, width))
        images = np.stack([first, second])
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        pixels = F.interpolate(pixels, scale_factor=factor, mode="bicubic") if factor > 1 else pixels
        high, wide = pixels.shape[-2:]
        pixels = F.pad(pixels, (0, -wide % 8, 0, -high % 8), mode="replicate")
        flow = self.model(pixels[:1], pixels[1:])[-1][:, :, :high, :wide]
        flow = F.avg_pool2d(flow, factor) / factor if factor > 1 else flow
        return flow[0].permute(1, 2, 0).cpu().numpy()
