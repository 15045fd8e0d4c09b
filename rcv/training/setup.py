"""What a run is made of: the base model, its clips, and settings with nothing left open."""

import hashlib
import math
import os
import re
from pathlib import Path

import torch

from rcv.data.cache import open_cache
from rcv.training.clips import ClipFolder
from rcv.training.config import EMBEDDED_LEARNING_RATE, LEARNING_RATE
from rcv.training.disk import writing
from rcv.training.draws import draw_seed
from rcv.training.memory import planned
from rcv.video import replacing_folder

EMBEDDED = "embedded"


def load_base(config):
    """Return the VideoPipeline of the base model, in float32, its UNet frozen but for the preset's trained weights.

    The weights that the preset adds start as the seed says: a function of the settings, like every later draw.
    """
    from rcv.diffusion import VideoPipeline

    torch.manual_seed(draw_seed(config.seed, "added weights"))
    return VideoPipeline.from_base(base_path(config), preset=config.preset)


def base_path(config):
    """Return the folder of the base model (or its name on the Hub)."""
    if config.base is not None:
        return os.path.expanduser(config.base)
    from rcv.world import model_path

    return str(model_path())


def resolved(config, pipeline, device):
    """Return the settings with every default that depends on the base, the device or other settings filled in.

    Raises
    ------
    ValueError
        A size that the VAE's factor does not divide; DoesNotFitError for what memory does not hold.
    """
    factor = pipeline.vae_scale_factor
    size = config.size or pipeline.size()
    for height, width in [bucket[1:] for bucket in config.buckets] or [size]:
        if height % factor or width % factor:
            near = "x".join(str(max(factor, round(side / factor) * factor)) for side in (height, width))
            raise ValueError(
                f"{'buckets' if config.buckets else 'size'}: {height}x{width} pixels, expected multiples of {factor}, "
                f"the factor of the base's VAE; the nearest is {near}"
            )
    rate = config.learning_rate
    if rate is None:
        rate = EMBEDDED_LEARNING_RATE if config.base is None else LEARNING_RATE
    warmup = config.steps // 10 if config.warmup_steps is None else config.warmup_steps
    precision = _native_precision(device) if config.precision == "auto" else config.precision
    debiased = config.debiased_loss
    if debiased is None:
        debiased = pipeline.unet.preset.debiased_loss
    settings = config.model_copy(
        update={
            "output": config.output.expanduser(),
            "size": size,
            "learning_rate": rate,
            "warmup_steps": warmup,
            "precision": precision,
            "debiased_loss": debiased,
            "resume": "auto",
        }
    )
    return planned(settings, pipeline, device)


def _native_precision(device):
    if device.type == "cpu":
        return "fp32"
    native = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if native else "fp16"


def open_clips(config):
    """Return the checked ClipFolder of resolved settings; without `clips` the theme is rendered into the output."""
    folder = rendered_clips(config) if config.clips is None else config.clips.expanduser()
    return ClipFolder(
        *(folder, config.frames, config.size, config.stride, config.crop),
        buckets=config.shapes(),
        fps=config.fps,
        flip=config.flip,
        skip_broken=config.skip_broken,
        cache=open_cache(config.cache),
    )


def rendered_clips(config):
    """Return the folder of clips of the theme: under OUTPUT/clips, rendered unless it is there."""
    from rcv.world import write_clips
    from rcv.world.clips import FPS

    frames = (config.frames - 1) * config.stride + 1
    if config.fps is not None:
        frames = math.ceil(frames * FPS / config.fps)
    height, width = config.size
    name = f"{config.theme} {config.clip_count}x{frames} {height}x{width} seed{config.seed}"
    name = re.sub(
        r"\W+", "-", " ".join([name, *(f"no {subject}" for subject in sorted(config.exclude_subject))])
    )
    folder = config.output / "clips" / name
    if not folder.exists():
        with writing(folder), replacing_folder(folder) as unfinished:
            write_clips(
                unfinished,
                config.theme,
                config.clip_count,
                config.seed,
                frames,
                config.size,
                exclude_subject=config.exclude_subject,
            )
    return folder


def base_fingerprint(path):
    """Return a digest of a model folder's file names, sizes and samples of their content; of a Hub name, the name.

    Weight files are sampled (64 KiB at 64 places), so that a base of gigabytes costs milliseconds: what it must tell
    apart is models, which differ everywhere.
    """
    folder = Path(path)
    if not folder.is_dir():
        return str(path)
    digest = hashlib.sha256()
    for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        if file.suffix not in {".json", ".txt", ".safetensors", ".bin"}:
            continue
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder)}\0{size}\0".encode())
        with open(file, "rb") as stream:
            for place in range(64):
                stream.seek(size * place // 64)
                digest.update(stream.read(1 << 16))
    return digest.hexdigest()[:16]
