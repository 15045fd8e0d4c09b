"""Components of a video pipeline from a text-to-image folder and an adapter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer

from rcv.diffusion.adapters import adapter_file, common_description, load_adapters, weighted_adapters
from rcv.models import Preset, VideoUNet, get_preset
from rcv.models.sources import find_weights

WEIGHTS = {"vae": ("diffusion_pytorch_model",), "text_encoder": ("model", "pytorch_model")}
COMPONENTS = {
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "unet": ("UNet2DConditionModel", "VideoUNet"),
    "scheduler": None,
}
EXPECTED = (
    "a Stable Diffusion 1.x or 2.x model in diffusers' layout: a folder with model_index.json and the folders "
    "vae, text_encoder, tokenizer, unet and scheduler"
)


def load_base(
    path: str | Path,
    preset: str | Preset | None,
    adapter,
    dtype: torch.dtype,
    variant: str | None = None,
    allow_pickle: bool = False,
) -> dict[str, Any]:
    """Arguments of VideoPipeline; see `VideoPipeline.from_base`."""
    folder = _local_folder(path, variant)
    index = _checked_index(folder)
    adapters = weighted_adapters(adapter)
    preset = _preset_of(preset, adapters)
    scheduler = getattr(diffusers, index["scheduler"][1], None)
    if scheduler is None:
        raise ValueError(f"{folder}: diffusers has no scheduler {index['scheduler'][1]!r}")
    files = {"dtype": dtype, "variant": variant}
    unet = _load(folder / "unet", _load_unet, index["unet"][1], preset, allow_pickle, **files)
    if adapters:
        load_adapters(unet, adapters)
    return {
        "vae": _load_whole(folder / "vae", AutoencoderKL, allow_pickle, files),
        "text_encoder": _load_whole(folder / "text_encoder", CLIPTextModel, allow_pickle, files),
        "tokenizer": _load_tokenizer(folder / "tokenizer"),
        "unet": unet,
        "scheduler": _load(folder / "scheduler", scheduler.from_pretrained),
    }


def _load(folder: Path, loader, *args, **arguments):
    """What `loader(folder, ...)` returns; a ValueError that names the folder in place of the loaders' many kinds."""
    try:
        return loader(folder, *args, **arguments)
    except (OSError, RuntimeError, SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} cannot be loaded, a file is missing or damaged: {error}") from error


def _load_unet(folder: Path, kind: str, preset, allow_pickle: bool, **files) -> VideoUNet:
    if kind != "VideoUNet":
        return VideoUNet.from_pretrained_2d(
            folder, preset=preset or "recurrent", allow_pickle=allow_pickle, **files
        )
    unet = VideoUNet.from_pretrained(folder, use_safetensors=None if allow_pickle else True, **files)
    if preset is not None and get_preset(preset) != unet.preset:
        raise ValueError(f"preset is {preset!r}, but {folder} was saved with {unet.preset.name!r}")
    return unet


def _load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer; without its vocabulary's file, transformers would return an empty one in silence."""
    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise ValueError(
                    f"{folder} lacks {name}; expected tokenizer.json, or vocab.json and merges.txt"
                )
    return _load(folder, CLIPTokenizer.from_pretrained)


def _load_whole(folder: Path, kind, allow_pickle: bool, files: dict[str, Any]):
    """A model all of whose weights are there: the libraries fill missing ones at random, with a warning."""
    find_weights(folder, WEIGHTS[folder.name], allow_pickle, files["variant"])
    safe = None if allow_pickle else True
    model, info = _load(folder, kind.from_pretrained, use_safetensors=safe, output_loading_info=True, **files)
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{folder} lacks {len(missing)} weights of a {kind.__name__}, such as {missing[0]}")
    return model.eval()


def _local_folder(path: str | Path, variant: str | None) -> Path:
    """The folder itself, or the Hub's snapshot of it."""
    folder = Path(path)
    if folder.is_file():
        raise ValueError(f"{path} is a file, expected {EXPECTED}; diffusers converts single-file checkpoints")
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)):
        raise ValueError(f"{path}: no such folder; expected {EXPECTED}")
    try:
        return Path(DiffusionPipeline.download(str(path), variant=variant))
    except OSError as error:
        raise ValueError(f"{path}: no such folder, and not found on the Hub either ({error})") from error


def _checked_index(folder: Path) -> dict[str, Any]:
    """model_index.json, if it describes a model that a VideoUNet can stand in."""
    file = folder / "model_index.json"
    if not file.is_file():
        found = "a single component" if (folder / "config.json").is_file() else "no model_index.json"
        raise ValueError(f"{folder} holds {found}, expected {EXPECTED}")
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    kind = index.get("_class_name", "unknown")
    for name, classes in COMPONENTS.items():
        entry = index.get(name)
        if not entry or entry[1] is None:
            raise ValueError(f"{folder} is a {kind} without {name}, expected {EXPECTED}")
        if classes is not None and entry[1] not in classes:
            raise ValueError(
                f"{folder} is a {kind} whose {name} is a {entry[1]}, expected {classes[0]}: {EXPECTED}"
            )
        if not (folder / name).is_dir():
            raise ValueError(f"{folder}: the folder {name} is missing, expected {EXPECTED}")
    if index.get("text_encoder_2", [None])[0] is not None:
        raise ValueError(f"{folder} is a {kind} with two text encoders (SDXL), expected {EXPECTED}")
    return index


def _preset_of(preset, adapters):
    """The preset to build: what was asked for, else the adapters' own; None if nobody names one."""
    trained = common_description(adapters).get("preset")
    if trained is not None and preset is not None and get_preset(preset) != get_preset(trained):
        raise ValueError(
            f"preset is {getattr(preset, 'name', preset)!r}, but the adapter {adapter_file(adapters[0].path)} was "
            f"trained with {trained!r}; leave preset out"
        )
    return preset or trained
