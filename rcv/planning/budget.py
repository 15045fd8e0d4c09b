"""Memory to plan for: a card's by name, or an amount."""

import re
from dataclasses import dataclass

from rcv.config import nearest

GIB = 2**30
CONTEXT = GIB // 2
"""What a CUDA context with PyTorch's and cuDNN's kernels takes of a card, about; it differs with driver and card."""


@dataclass(frozen=True)
class Budget:
    """Memory of a device.

    Attributes
    ----------
    name : str
    total : int or None
        Bytes that the card reports; None where there is no limit to hold to.
    capability : tuple of two int, or None
        Compute capability; None for a CPU, which has no context and no caching allocator.
    """

    name: str
    total: int | None
    capability: tuple | None

    @property
    def context(self):
        """Bytes that the CUDA context takes."""
        return 0 if self.capability is None else CONTEXT

    @property
    def usable(self):
        """Bytes left for tensors, or None."""
        return None if self.total is None else self.total - self.context


def _card(name, gib, capability):
    return Budget(name, int(gib * GIB), capability)


# total memory as torch.cuda.get_device_properties reports it
CARDS = {
    card.name: card
    for card in (
        _card("t4", 14.7, (7, 5)),
        _card("v100", 15.8, (7, 0)),
        _card("v100-32gb", 31.7, (7, 0)),
        _card("rtx3060", 11.7, (8, 6)),
        _card("rtx3090", 23.7, (8, 6)),
        _card("rtx4090", 23.6, (8, 9)),
        _card("a100-40gb", 39.4, (8, 0)),
        _card("a100-80gb", 79.2, (8, 0)),
        _card("h100", 79.1, (9, 0)),
    )
}


def budget(text):
    """Return the Budget of a card in CARDS, of an amount such as "12GiB", or of "cpu" (no limit).

    An amount is a CUDA device's of compute capability 7.0, whose plan is the largest by a little.

    Raises
    ------
    ValueError
        For anything else, and for an amount that the CUDA context alone takes.
    """
    name = text.strip().lower()
    if name == "cpu":
        return Budget("cpu", None, None)
    if name in CARDS:
        return CARDS[name]
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gib|gb|g|mib|mb|m)", name)
    if not match:
        raise ValueError(
            f"unknown memory {text!r}{nearest(name, CARDS)} (known: {', '.join(CARDS)}, cpu, or an amount such as "
            "12GiB)"
        )
    unit = {"gib": GIB, "g": GIB, "gb": 10**9, "mib": 2**20, "m": 2**20, "mb": 10**6}[match[2]]
    total = int(float(match[1]) * unit)
    if total <= CONTEXT:
        raise ValueError(f"memory {text!r} is what a CUDA context alone takes ({CONTEXT / GIB:.1f} GiB)")
    return Budget(text.strip(), total, (7, 0))
