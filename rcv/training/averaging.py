"""A running mean of the trained weights, and other weights in their place for a while."""

from contextlib import contextmanager

import torch
from diffusers.training_utils import EMAModel


class WeightAverage:
    """Exponential moving average of weights, in their own precision (float32) and on their device.

    The decay of step n is min(decay, (1 + n) / (10 + n)), so that the first steps are soon forgotten: diffusers'
    EMAModel, known by the weights' names.

    Parameters
    ----------
    weights : dict of str to torch.nn.Parameter
    decay : float
    """

    def __init__(self, weights, decay):
        self._weights = weights
        self._model = EMAModel(weights.values(), decay=decay)

    def update(self):
        """Take the weights of one more optimizer step in."""
        self._model.step(self._weights.values())

    def state_dict(self):
        """Return {name: mean}: references, as PyTorch's state dicts are."""
        return dict(zip(self._weights, self._model.shadow_params, strict=True))

    @torch.no_grad()
    def load_state_dict(self, means, steps):
        """Take the means after `steps` updates."""
        for name, mean in self.state_dict().items():
            mean.copy_(means[name])
        self._model.optimization_step = steps


@contextmanager
def replaced(unet, weights):
    """Put other trained weights (None: none) into a VideoUNet inside the block; its own wait in main memory."""
    if weights is None:
        yield
        return
    own = {name: weight.to("cpu", copy=True) for name, weight in unet.adapter_state_dict().items()}
    unet.load_adapter_state_dict(weights)
    try:
        yield
    finally:
        unet.load_adapter_state_dict(own)
