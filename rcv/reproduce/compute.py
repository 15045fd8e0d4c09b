"""Computing a cell: train (or find the training), sample, score."""

import json
import platform
import shutil
import time

import numpy as np
import torch

from rcv.diffusion import Windows, encode_video, invert_latents
from rcv.diffusion.config import WINDOW, ModelConfig
from rcv.diffusion.generate import load_pipeline, pixels
from rcv.diffusion.noise import NoiseConfig
from rcv.evaluation.motion import motion_truth
from rcv.evaluation.scores import video_scores
from rcv.reproduce.cells import write_result
from rcv.reproduce.cut import cut_memory
from rcv.reproduce.peak import peak_memory
from rcv.training import finetune
from rcv.training.adapter import ADAPTER_FILE, library_versions
from rcv.training.draws import draw_seed
from rcv.training.lock import folder_lock
from rcv.training.log import Record, read_log
from rcv.training.trainer import DivergedError
from rcv.video import replacing
from rcv.world.clips import clip_scenes
from rcv.world.render import FPS, render_clip


def compute_cell(cell, clip):
    """Compute a Cell and write its result, unless it is there; returns the result.

    The same cell gives the same numbers, but for its times. A training that diverges is a result too: the cell has no
    videos and says why.

    Parameters
    ----------
    cell : Cell
    clip : ImageTextModel
        Of `rcv.evaluation.clip.load_clip`.

    Raises
    ------
    FolderBusyError
        Another process is at this cell or its training.
    """
    with folder_lock(cell.folder):
        if (result := cell.result()) is not None:
            return result
        training, videos, scored = {}, [], []
        started = time.perf_counter()
        try:
            settings = cell.training
            if settings is not None:
                training = trained(settings)
            began = time.perf_counter()
            videos = sampled(cell)
            ended = time.perf_counter()
            for (group, scene), frames in zip(cell.prompts, videos, strict=True):
                scored.append(
                    {"caption": scene.caption, "group": group, **_scores(frames, scene.caption, clip)}
                )
            sampling = {"sample_seconds": ended - began, "score_seconds": time.perf_counter() - ended}
        except DivergedError as error:
            training, sampling = {"error": str(error)}, {}
        if videos:
            with replacing(cell.folder / "videos.npz") as part:
                np.savez_compressed(part, videos=np.stack(videos))
        write_result(
            cell.folder,
            {
                "arm": cell.arm.name,
                "theme": cell.theme,
                "seed": cell.seed,
                **training,
                **sampling,
                "wall_seconds": time.perf_counter() - started,
                "videos": scored,
                "device": _device(),
                "threads": torch.get_num_threads(),
                "versions": library_versions(),
            },
        )
        return cell.result()


def trained(settings):
    """Train by a FinetuneConfig unless it is done; returns {"train_seconds", "step_seconds", "peak_bytes"}.

    Seconds are of the optimizer steps alone. A run that was killed goes on from its checkpoint.
    """
    record = settings.output / "training.json"
    if record.is_file():
        return json.loads(record.read_text(encoding="utf-8"))
    with peak_memory() as peak:
        result = finetune(settings, show_progress=False)
    steps = [row.seconds for row in read_log(settings.output / "losses.csv", Record)]
    measured = {
        "train_seconds": float(sum(steps)),
        "step_seconds": result.seconds_per_step,
        "peak_bytes": peak.bytes,
        "final_loss": float(np.mean(result.losses[-20:])),
    }
    for folder in ("checkpoints", "clips"):
        shutil.rmtree(settings.output / folder, ignore_errors=True)
    with replacing(record) as part:
        part.write_text(json.dumps(measured), encoding="utf-8")
    return measured


def sampled(cell):
    """Return the videos of a cell, uint8 [F,H,W,3] each; those of true clips are rendered."""
    config, arm, settings = cell.config, cell.arm, cell.training
    scenes = [scene for _, scene in cell.prompts]
    if settings is None:
        return [render_clip(scene, cell.frames).frames for scene in scenes]
    model = ModelConfig(base=config.base, adapter=settings.output / ADAPTER_FILE, scheduler="ddim")
    pipeline = load_pipeline(model)
    pipeline.set_progress_bar_config(disable=True)
    if arm.cut is not None:
        cut_memory(pipeline.unet, arm.cut)
    latents = _inverted_first_clip(cell, pipeline) if arm.guided else None
    longer = cell.frames > max(WINDOW, config.frames)
    videos = []
    for number, scene in enumerate(scenes):
        seed = draw_seed(cell.seed, "table noise", number)
        frames = pipeline(
            scene.caption,
            num_frames=cell.frames,
            num_inference_steps=config.sampling_steps,
            guidance_scale=config.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(seed),
            noise=NoiseConfig(**arm.noise),
            latents=latents,
            windows=Windows.for_preset(pipeline.unet.preset, WINDOW) if longer else None,
            output_type="np",
        ).frames[0]
        videos.append(np.round(frames * 255).astype(np.uint8))
    return videos


def _inverted_first_clip(cell, pipeline):
    """The noise that DDIM turns back into the first clip that was trained on, the prompt empty."""
    scene = clip_scenes(cell.theme, 1, cell.seed, () if cell.hidden is None else (cell.hidden,))[0]
    size = pipeline.size()
    clip = render_clip(scene, cell.frames, size)
    latents = encode_video(pipeline.vae, pixels(clip.frames, size), sample=False)
    text, _ = pipeline.encode_prompt([""], pipeline._execution_device, guided=False)
    return invert_latents(pipeline.unet, pipeline.scheduler, latents, text, cell.config.sampling_steps)


def _scores(frames, caption, clip):
    truth = motion_truth(frames, caption, FPS)
    numbers = {
        f"truth_{name}" if name != "score" else "truth": value for name, value in truth.numbers().items()
    }
    scores = {**video_scores(frames, caption, clip), **numbers}
    return {
        "scores": {name: float(value) for name, value in scores.items()},
        "subject_by_frame": list(truth.subject_by_frame),
    }


def _device():
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def _lines(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError:
        return []
