"""Adapters to load: one, or several mixed by weights."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from rcv.models import VideoUNet, get_preset
from rcv.models.sources import misfit

ADAPTER_FILE = "adapter.safetensors"
logger = logging.getLogger(__name__)


class Weighted(NamedTuple):
    """An adapter, named by its file or folder, and how much of it is taken."""

    path: Path
    weight: float


def weighted_adapters(adapters) -> list[Weighted]:
    """Return the adapters that somebody named, each with its weight.

    Parameters
    ----------
    adapters : None, path, str, sequence of them, or mapping
        A text may end in `:WEIGHT`, as in "runs/birds:0.7", unless that is the name of a file; without it the weight is
        1. A mapping is {path: weight}.

    Raises
    ------
    ValueError
        A weight that is not finite; weights that add up to 0 or less; an adapter named twice.
    """
    if adapters is None:
        return []
    if isinstance(adapters, str | Path):
        adapters = [adapters]
    if isinstance(adapters, Mapping):
        found = [Weighted(Path(path), float(weight)) for path, weight in adapters.items()]
    else:
        found = [_weighted(adapter) for adapter in adapters]
    for path, weight in found:
        if not math.isfinite(weight):
            raise ValueError(f"adapter: the weight of {path} is {weight}, expected a finite number")
    paths = [adapter_file(path) for path, _ in found]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"adapter: {path} is named twice; give it one weight, as in {path}:2")
    total = sum(weight for _, weight in found)
    if found and total <= 0:
        raise ValueError(f"adapter: the weights add up to {total:g}, expected more than 0")
    return found


def _weighted(adapter) -> Weighted:
    if isinstance(adapter, Path) or Path(adapter).exists():
        return Weighted(Path(adapter), 1.0)
    path, colon, weight = adapter.rpartition(":")
    try:
        return Weighted(Path(path), float(weight)) if colon and path else Weighted(Path(adapter), 1.0)
    except ValueError:  # a colon of the path's own, as after a drive's letter
        return Weighted(Path(adapter), 1.0)


def adapter_file(adapter: str | Path) -> Path:
    """The file of an adapter named by itself or by its folder."""
    file = Path(adapter)
    return file / ADAPTER_FILE if file.is_dir() else file


def adapter_description(adapter: str | Path) -> dict[str, Any]:
    """What an adapter says of itself: preset, base, frames, size, noise, ...; empty if it says nothing.

    Raises
    ------
    ValueError
        No such file, or not a readable `.safetensors` file.
    """
    file = adapter_file(adapter)
    if not file.is_file():
        raise ValueError(f"adapter: {file} does not exist; expected {ADAPTER_FILE} as finetuning writes it")
    if file.suffix != ".safetensors":
        raise ValueError(
            f"adapter: {file} is not a .safetensors file; pickled checkpoints go through `rcv convert`"
        )
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"adapter: {file} is not a readable safetensors file: {error}") from error
    description = json.loads(metadata.get("description", "{}"))
    return {**description, **({"preset": metadata["preset"]} if "preset" in metadata else {})}


def common_description(adapters: list[Weighted]) -> dict[str, Any]:
    """What the first of some adapters says of itself, once it is sure that they can be mixed; {} for none.

    Raises
    ------
    ValueError
        Two adapters of different bases or presets; names both.
    """
    if not adapters:
        return {}
    (first, _), *others = adapters
    said = adapter_description(first)
    for path, _ in others:
        also = adapter_description(path)
        for what, of_first, of_other in _differences(said, also):
            raise ValueError(
                f"adapter: {first} was trained with {what} {of_first!r}, {path} with {of_other!r}; only adapters of "
                "one base and preset can be mixed"
            )
    return said


def _differences(one: dict[str, Any], other: dict[str, Any]):
    """(what, value, value) for what keeps two adapters from being mixed."""
    if None not in (one.get("preset"), other.get("preset")) and (
        get_preset(one["preset"]) != get_preset(other["preset"])
    ):
        yield "preset", one["preset"], other["preset"]
    digests = one.get("base_digest"), other.get("base_digest")
    same = digests[0] == digests[1] if None not in digests else one.get("base") == other.get("base")
    if not same:
        yield "base", one.get("base"), other.get("base")


def load_adapters(unet: VideoUNet, adapters: list[Weighted]) -> None:
    """Put adapters into a VideoUNet that has just been made: one of weight 1 as it is, otherwise their mixture.

    Of weights that start the same in every run (those of the 2D UNet, and layers that start at zero) the changes are
    added up, each times its weight. Weights that start at random have no common start to change from: there it is the
    weighted mean.

    Raises
    ------
    ValueError
        An adapter that does not fit, by its file and the names of the weights.
    """
    own = unet.adapter_state_dict()
    states = []
    for path, _ in adapters:
        states.append(load_file(adapter_file(path)))
        if faults := misfit(own, states[-1]):
            raise ValueError(
                f"the adapter {adapter_file(path)} does not fit preset {unet.preset.name!r} of this UNet: {faults}"
            )
    amounts = [weight for _, weight in adapters]
    if amounts == [1.0]:
        unet.load_adapter_state_dict(states[0])
        return
    if len({adapter_description(path).get("seed") for path, _ in adapters}) > 1:
        logger.warning(
            "the adapters were trained with different seeds: the layers that they add started from different random "
            "weights, and a mean of those may do less than any of them"
        )
    mixture = {}
    for name, start in own.items():
        there = [state[name].to(start.device, torch.float32) for state in states]
        if name in unet.image_names or bool((start == start.flatten()[0]).all()):
            changes = (amount * (weight - start) for amount, weight in zip(amounts, there, strict=True))
            mixture[name] = start + sum(changes)
        else:
            weighted = (amount * weight for amount, weight in zip(amounts, there, strict=True))
            mixture[name] = sum(weighted) / sum(amounts)
    unet.load_adapter_state_dict(mixture)
