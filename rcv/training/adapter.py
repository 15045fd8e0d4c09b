"""Adapters: the trained weights alone, in one safetensors file that says what they belong to."""

import importlib.metadata
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rcv.training.disk import OutputError
from rcv.video import replacing

ADAPTER_FILE = "adapter.safetensors"
FORMAT = "rcv-adapter"
FORMAT_VERSION = 1
LIBRARIES = ("rcv-video", "torch", "diffusers", "transformers", "accelerate")


def save_adapter(unet, path, *, dtype=torch.float32, **details):
    """Write the trained weights of a VideoUNet.

    Parameters
    ----------
    unet : rcv.models.VideoUNet
    path : path
        The .safetensors file, or a folder that gets `adapter.safetensors`. Written under a temporary name and renamed.
    dtype : torch.dtype
        Of the stored weights.
    **details
        JSON values for the metadata, such as base, prompts, steps and seed.

    Returns
    -------
    pathlib.Path
        The file.
    """
    file = adapter_file(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in unet.adapter_state_dict().items()
    }
    description = {"preset": unet.preset.name, **details, "versions": library_versions()}
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "preset": unet.preset.name,
        "description": json.dumps(description),
    }
    try:
        with replacing(file) as temporary:
            save_file(weights, temporary, metadata=metadata)
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{file}: the adapter could not be written ({error}); the last checkpoint stands. Make room or mend the "
            "permissions, then start the same command again"
        ) from error
    return file


def read_adapter(path):
    """Return the weights {name: tensor} and the description of an adapter, a folder of a run or a file.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not an adapter: another kind of file, damaged, or of a newer format.
    """
    file = adapter_file(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"adapter: {file} does not exist; expected a file or folder that `rcv finetune` wrote"
        )
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"adapter: {file} is not an adapter that rcv wrote (its metadata name no format {FORMAT!r}); "
                    "`rcv convert` reads published checkpoints"
                )
            if int(metadata["format_version"]) > FORMAT_VERSION:
                raise ValueError(
                    f"adapter: {file} has format {metadata['format_version']}, this rcv reads up to {FORMAT_VERSION}"
                )
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"adapter: {file} is damaged or not a safetensors file ({error})") from error
    return weights, json.loads(metadata["description"])


def adapter_file(path):
    """Return the adapter's file for a path that names it or its folder."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path / ADAPTER_FILE


def library_versions():
    """Return {library: version} of what a result depends on; those not installed are left out."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
