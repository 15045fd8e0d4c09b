"""Videos that the app generates: named by time and prompt, each with its settings beside it."""

import itertools
import re
from datetime import datetime

from rcv.app.fields import settings_of, whole
from rcv.cli.options import resolve
from rcv.diffusion.config import GenerateConfig

SHOWN_SIDE = 320
"""Smaller videos are enlarged, each pixel to a square, while their longer side stays within so many pixels."""
EMBEDDED_SIDE = 64


def generated(folder, prompt, adapter, seed, steps, more, progress):
    """Generate one video into `folder` by the function of `rcv generate`; returns its path.

    Parameters
    ----------
    more : str
        Further settings, "name: value" a line.
    progress : callable
        Called as progress((step, steps), desc=..., unit=...), as gradio.Progress.

    Raises
    ------
    ConfigError, ValueError, OSError
        As `rcv generate`.
    """
    from rcv.diffusion.generate import generate

    fields = {"prompts": [prompt], "adapter": adapter, "seed": whole(seed), "steps": whole(steps)}
    fields["output"] = str(_free_path(folder, prompt))
    given = settings_of(fields, more)
    config = resolve(GenerateConfig, None, given)
    if "scale" not in given:
        config = config.model_copy(update={"scale": _scale(config)})
    paths = generate(
        config, progress=lambda step, steps: progress((step, steps), desc="denoising", unit="steps")
    )
    return str(paths[0])


def _free_path(folder, prompt):
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40]
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{slug}".strip("-")
    for number in itertools.count(1):
        path = folder / f"{name}{f'-{number}' if number > 1 else ''}.mp4"
        if not path.exists():
            return path


def _scale(config):
    config = config.with_adapter_defaults()
    sides = [side for side in (config.height, config.width) if side]
    if not sides and config.base is None:
        sides = [EMBEDDED_SIDE]
    return max(1, SHOWN_SIDE // max(sides)) if sides else 1
