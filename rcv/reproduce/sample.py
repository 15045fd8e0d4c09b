"""Sampling and scoring the videos of a cell."""

import numpy as np
import torch

from rcv.diffusion import Windows, encode_video, invert_latents
from rcv.diffusion.config import WINDOW, ModelConfig
from rcv.diffusion.generate import load_pipeline, pixels
from rcv.diffusion.noise import NoiseConfig
from rcv.evaluation.motion import motion_truth
from rcv.evaluation.scores import video_scores
from rcv.reproduce.cut import cut_memory
from rcv.training.adapter import ADAPTER_FILE
from rcv.training.draws import draw_seed
from rcv.world.clips import clip_scenes
from rcv.world.render import FPS, render_clip


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


def scored(frames, caption, clip):
    """Return {"scores": {name: float}, "subject_by_frame": [float]} of one video: metrics and motion truth."""
    truth = motion_truth(frames, caption, FPS)
    numbers = {
        f"truth_{name}" if name != "score" else "truth": value for name, value in truth.numbers().items()
    }
    scores = {**video_scores(frames, caption, clip), **numbers}
    return {
        "scores": {name: float(value) for name, value in scores.items()},
        "subject_by_frame": list(truth.subject_by_frame),
    }
