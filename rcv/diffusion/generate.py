"""Generation from settings to files: what `rcv generate` and `rcv invert` run."""

import re

import diffusers
import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rcv.config import DTYPES
from rcv.data.captions import caption_name
from rcv.diffusion.config import (
    EMBEDDED_GUIDANCE,
    GUIDANCE,
    SCHEDULERS,
    WINDOW,
    GenerateConfig,
    InvertConfig,
)
from rcv.diffusion.inversion import ddim_invert
from rcv.diffusion.latents import encode_video
from rcv.diffusion.pipeline import VideoPipeline
from rcv.diffusion.windows import Windows
from rcv.video import check_target, read_video, replacing, write_video
from rcv.video.fitting import fit

__all__ = ["GenerateConfig", "InvertConfig", "generate", "invert", "load_pipeline"]


def generate(config, progress=None):
    """Generate videos of prompts and write them, each as soon as it is done.

    Parameters
    ----------
    config : GenerateConfig
        Settings; `config.output` names the file, numbered where there are several videos.
    progress : callable, optional
        Called as progress(step, steps) after each denoising step, `steps` being those of all videos.

    Returns
    -------
    list of pathlib.Path
        The files (or folders) written. Beside each is its prompt, NAME.txt, as clips have their captions; the settings,
        with nothing left open, are in NAME.yaml.

    Raises
    ------
    ValueError
        Settings that don't fit each other, the model or the files they name; before any step is taken.
    """
    if not any(prompt.strip() for prompt in config.prompts):
        raise ValueError(
            "prompts: no prompt was given; expected at least one, such as 'a red fox walking on grass'"
        )
    prompts = [prompt for prompt in config.prompts for _ in range(config.videos_per_prompt)]
    outputs = output_paths(config.output, prompts)
    for path in outputs:
        check_target(path)
    latents = None if config.latents is None else _read_latents(config.latents)
    first_frame = None if config.first_frame is None else read_video(config.first_frame, indices=[0]).frames
    config = config.with_adapter_defaults()
    pipeline = load_pipeline(config)
    pipeline.set_progress_bar_config(disable=progress is not None)
    config = _resolved(config, pipeline, latents)
    if first_frame is not None:
        generator = torch.Generator("cpu").manual_seed(config.seed)
        picture = pixels(first_frame, (config.height, config.width))
        first_frame = encode_video(pipeline.vae, picture, generator=generator)[:, :, 0]

    windows = None
    if config.window is not None:
        windows = Windows(config.window, config.window_mode, config.window_overlap)
    size = config.batch_size
    batches = [range(k, min(k + size, len(prompts))) for k in range(0, len(prompts), size)]
    for number, batch in enumerate(batches):

        def on_step_end(pipe, step, timestep, tensors, number=number):
            if progress is not None:
                done = number + (step + 1) / pipe.num_timesteps
                progress(round(config.steps * done), config.steps * len(batches))
            return {}

        videos = pipeline(  # latents: a video is decoded while it is written
            [prompts[k] for k in batch],
            negative_prompt=config.negative_prompt,
            num_frames=config.frames,
            height=config.height,
            width=config.width,
            num_inference_steps=config.steps,
            guidance_scale=config.guidance_scale,
            guidance_rescale=config.guidance_rescale,
            generator=[torch.Generator("cpu").manual_seed(config.seed + k) for k in batch],
            noise=config.noise_config(),
            latents=None if latents is None else latents.expand(len(batch), *latents.shape[1:]),
            first_frame_latents=first_frame,
            windows=windows,
            hold=config.hold,
            output_type="latent",
            callback_on_step_end=on_step_end,
        ).frames
        for k, video in zip(batch, videos, strict=True):
            frames = pipeline.iter_frames(video, config.decode_chunk_size)
            write_video(outputs[k], frames, fps=config.fps, scale=config.scale)
            outputs[k].with_name(caption_name(outputs[k])).write_text(prompts[k] + "\n", encoding="utf-8")
    write_settings(config)
    return outputs


def invert(config):
    """Invert a video into initial latents by DDIM and write them; returns the path written.

    Parameters
    ----------
    config : InvertConfig

    Raises
    ------
    ValueError
        No video, one with too few frames, settings that don't fit the model.
    """
    if config.video is None:
        raise ValueError("video: no video was given; expected a video file, GIF or folder of frames")
    frames = read_video(config.video, indices=[i * config.stride for i in range(config.frames)]).frames
    config = config.with_adapter_defaults()
    pipeline = load_pipeline(config)
    config = _resolved(config, pipeline)
    generator = torch.Generator("cpu").manual_seed(config.seed)
    latents = encode_video(pipeline.vae, pixels(frames, (config.height, config.width)), generator=generator)
    inverted = ddim_invert(pipeline, latents, prompt=config.prompt, num_inference_steps=config.steps)
    with replacing(config.output) as part:
        try:
            save_file({"latents": inverted.float().cpu().contiguous()}, part)
        except SafetensorError as error:
            raise OSError(None, str(error)) from error
    write_settings(config)
    return config.output


def load_pipeline(config):
    """Return the VideoPipeline that a ModelConfig names, on its device.

    Raises
    ------
    ValueError
        See `VideoPipeline.from_base`; also a device that PyTorch does not have.
    """
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {device!r} cannot be used here ({error})") from error
    base = config.base
    if base is None:
        from rcv.world import model_path

        base = model_path()
    pipeline = VideoPipeline.from_base(
        base,
        preset=config.preset,
        adapter=config.adapter,
        dtype=getattr(torch, DTYPES[config.precision]),
    )
    if config.scheduler is not None:
        pipeline.scheduler = make_scheduler(config.scheduler, pipeline.scheduler.config)
    return pipeline.to(device)


def make_scheduler(name, config):
    """Return the scheduler of SCHEDULERS called `name` on the noise schedule of another one's configuration."""
    kind = getattr(diffusers, SCHEDULERS[name])
    # as Stable Diffusion's files have it: with Runge-Kutta steps, PNDM fails below four steps
    overrides = {"skip_prk_steps": True} if name == "pndm" else {}
    return kind.from_config(config, **overrides)


def _resolved(config, pipeline, latents=None):
    """Return the settings with everything that was left open filled in, checked against latents that are given."""
    update = {"preset": pipeline.unet.preset.name}
    if latents is None:
        height, width = pipeline.size(config.height, config.width)
        update.update(height=height, width=width, frames=config.frames or 16)
    else:
        factor = pipeline.vae_scale_factor
        frames, height, width = latents.shape[2], latents.shape[3] * factor, latents.shape[4] * factor
        for name, value in (("frames", frames), ("height", height), ("width", width)):
            if getattr(config, name) not in (None, value):
                raise ValueError(
                    f"{name} is {getattr(config, name)}, but the latents in {config.latents} are for {value}; "
                    f"leave {name} out"
                )
            update[name] = value
    if isinstance(config, GenerateConfig):
        if config.guidance_scale is None:
            update["guidance_scale"] = EMBEDDED_GUIDANCE if config.base is None else GUIDANCE
        update.update(_windows_left_open(config, update["frames"], pipeline.unet.preset))
        noise = config.noise_config()
        update.update(noise=noise.strategy, noise_alpha=noise.alpha, noise_form=noise.form)
    return config.model_copy(update=update)


def _windows_left_open(config, frames, preset):
    """Return {setting: value} of the windows of a video; `window` is None where all frames are denoised at once."""
    window = config.window or WINDOW
    if window >= frames:
        return {"window": None}
    windows = Windows.for_preset(preset, window, config.window_mode, config.window_overlap)
    return {"window": window, "window_mode": windows.mode}


def pixels(frames, size):
    """Return uint8 frames [F,H,W,3], fitted to (height, width), as one video [1,F,3,height,width] in [-1,1]."""
    fitted = torch.from_numpy(np.ascontiguousarray(fit(frames, size)))
    return fitted.permute(0, 3, 1, 2)[None].float() / 127.5 - 1


def _read_latents(path):
    """Return the latents [1,C,F,h,w] of a file that `invert` wrote."""
    try:
        latents = load_file(path)["latents"]
    except (OSError, SafetensorError, KeyError) as error:
        raise ValueError(f"latents: {path} is not a file that `rcv invert` wrote ({error})") from error
    if latents.ndim != 5 or latents.shape[0] != 1:
        raise ValueError(
            f"latents: {path} holds a tensor of shape {tuple(latents.shape)}; expected one video, [1,C,F,h,w]"
        )
    return latents


def output_paths(output, prompts):
    """Return one path a video: `output` itself for one, numbered and named by prompt for several."""
    if len(prompts) == 1:
        return [output]
    names = [re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].strip("-") for prompt in prompts]
    stem = output.stem if output.suffix else output.name
    return [
        output.with_name(f"{stem}-{k:02d}{'-' if name else ''}{name}{output.suffix}")
        for k, name in enumerate(names)
    ]


def write_settings(config):
    """Write the settings of a result beside it as NAME.yaml, or as NAME-settings.yaml where the user has a file there.

    A file that an earlier result left is replaced: one whose text is a dump of all these settings.
    """
    output = config.output
    stem = output.stem if output.suffix else output.name
    path = output.with_name(f"{stem}.yaml")
    if path.exists() and not _is_dump(path, type(config)):
        path = output.with_name(f"{stem}-settings.yaml")
    config.write_yaml(path)
    return path


def _is_dump(path, kind):
    try:
        text = path.read_text(encoding="utf-8")
        settings = yaml.safe_load(text)
        return set(settings) == set(kind.model_fields) and yaml.safe_dump(settings, sort_keys=False) == text
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError):
        return False
