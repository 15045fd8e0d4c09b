"""Checkpoints that a kill, a crash or a full disk cannot break: each is complete under its name, or not there.

A checkpoint is a folder `step-000300` of safetensors files, `state.json` and `manifest.json` with the size and SHA-256
of the others. It is written under a temporary name, flushed to the disk, and renamed.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
STATE = "state.json"
logger = logging.getLogger(__name__)


class CheckpointError(OSError):
    """A checkpoint that cannot be written or read; says which one remains."""


class Checkpoint(NamedTuple):
    """What was saved: the step, named groups of tensors, and a dict of plain values."""

    step: int
    tensors: dict
    state: dict


def checkpoint_path(folder, step):
    """Return the path of the checkpoint of optimizer step `step` (the number of steps done)."""
    return Path(folder) / f"step-{step:06d}"


def save_checkpoint(folder, step, tensors, state, keep):
    """Write a checkpoint and remove older ones.

    Parameters
    ----------
    folder : path
        Made if missing.
    step : int
        Optimizer steps done. Checkpoints of later steps are removed: the run was set back behind them.
    tensors : dict of dict of torch.Tensor
        {file name without suffix: {name: tensor}}.
    state : dict
        JSON values.
    keep : int
        How many checkpoints remain, this one counted.

    Raises
    ------
    CheckpointError
        Nothing was written (full disk, no permission); earlier checkpoints are as they were.
    """
    folder = Path(folder)
    final = checkpoint_path(folder, step)
    temporary = folder / f".writing-{final.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _write_files(temporary, tensors, {"format_version": FORMAT_VERSION, "step": step, **state})
        if final.exists():
            _remove(final)
        os.replace(temporary, final)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        last = newest_checkpoint(folder)
        remains = f"the last complete checkpoint is {last}" if last else "there is no earlier checkpoint"
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written ({error}); {remains}. Make room or mend the "
            "permissions, then start the same command again"
        ) from error
    complete = [path for path in list_checkpoints(folder) if path != final]
    later = [path for path in complete if _step_of(path) > step]
    for path in later + [path for path in complete if path not in later][max(0, keep - 1) :]:
        with suppress(OSError):
            _remove(path)
    return final


def load_checkpoint(path):
    """Return the Checkpoint at `path` after checking every file's size and SHA-256; CheckpointError otherwise."""
    path = Path(path)
    problem = broken(path)
    if problem:
        raise CheckpointError(f"{path} is not a complete checkpoint: {problem}")
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    if state["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format {state['format_version']}, this rcv reads up to {FORMAT_VERSION}"
        )
    tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
    return Checkpoint(state["step"], tensors, state)


def list_checkpoints(folder):
    """Return the checkpoints that have a manifest, the newest first; contents are not checked."""
    found = [
        path
        for path in Path(folder).glob("step-*")
        if _step_of(path) is not None and (path / MANIFEST).exists()
    ]
    return sorted(found, key=_step_of, reverse=True)


def newest_checkpoint(folder):
    """Return the path of the newest complete checkpoint in `folder`, or None; broken ones are passed with a warning."""
    for path in list_checkpoints(folder):
        problem = broken(path)
        if not problem:
            return path
        logger.warning("%s is passed over: %s", path, problem)
    return None


def clear_leftovers(folder):
    """Remove what killed runs left half written or half removed."""
    for path in [*Path(folder).glob(".writing-*"), *Path(folder).glob(".removed-*")]:
        shutil.rmtree(path, ignore_errors=True)


def broken(path):
    """Return what is wrong with a checkpoint in a sentence, or None if every file is as the manifest says."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"].items()
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    for name, expected in files:
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected["bytes"]:
            return f"{name} has {file.stat().st_size} bytes, expected {expected['bytes']}"
        if _sha256(file) != expected["sha256"]:
            return f"{name} has changed since it was written (SHA-256)"
    return None


def _write_files(folder, tensors, state):
    for name, group in tensors.items():
        save_file(
            # copies: an optimizer's tables may be one tensor for all weights, which safetensors refuses
            {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in group.items()},
            folder / f"{name}.safetensors",
        )
    (folder / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(folder.iterdir())
    }
    for name in files:
        _sync(folder / name)
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
    _sync(folder / MANIFEST)
    _sync(folder)


def _remove(path):
    """Take a checkpoint's name away first, so that a kill in between leaves no half-removed one under it."""
    aside = path.with_name(f".removed-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _step_of(path):
    match = re.fullmatch(r"step-(\d{6,})", path.name)
    return int(match[1]) if match else None


def _sha256(file):
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path):
    """Flush a file or a folder's entries to the disk; Windows cannot open folders."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
