"""The machine and versions that an end-to-end figure was measured on."""

import diffusers
import torch

from rcv.version import __version__

from .devices import device_name
from .results import commit, versions


def described_machine(device):
    """Return device, label, versions and commit, as written beside every figure.

    Parameters
    ----------
    device : str
        As PyTorch names it.
    """
    name = device_name(torch.device(device))
    return {
        "device": name,
        "label": f"measured on {name}",
        "versions": {"rcv": __version__, "diffusers": diffusers.__version__, **versions()},
        "commit": commit(),
    }
