"""Random draws as functions of (seed, step, sample index): several processes and resumed runs draw the same."""

import hashlib

import torch

GOLDEN_RATIO = (5**0.5 - 1) / 2


def draw_seed(seed, *where):
    """Return a 63-bit seed that depends on `seed` and on every item of `where` (ints and strings)."""
    text = "/".join(str(part) for part in (seed, *where))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def draw_generator(seed, *where):
    """Return a CPU generator for one draw: its numbers do not depend on the device that uses them."""
    return torch.Generator("cpu").manual_seed(draw_seed(seed, *where))


def timestep_at(seed, position, count):
    """Return which of `count` timesteps the sample at `position` (over the whole run) takes.

    Uniform over seeds, and spread evenly over every stretch of positions: multiples of the golden ratio from a random
    start (Weyl's sequence). A loss depends on its timestep far more than on what was learned; this way stretches of a
    loss curve can be compared.
    """
    start = draw_seed(seed, "time") / 2**63
    return int((start + position * GOLDEN_RATIO) % 1 * count)


def clip_at(seed, position, count):
    """Return which of `count` clips the sample at `position` (over the whole run) takes.

    Every epoch of `count` samples is a permutation of the clips, drawn without replacement.
    """
    epoch, place = divmod(position, count)
    return int(torch.randperm(count, generator=draw_generator(seed, "order", epoch))[place])
