"""Noise over frames, training targets, DDIM inversion, long videos in windows and the video pipeline.

Names are imported on first use: noise and settings do not pay for transformers.
"""

import importlib

_HOME = {
    "NoiseConfig": "noise",
    "VideoPipeline": "pipeline",
    "VideoPipelineOutput": "pipeline",
    "Windows": "windows",
    "ddim_invert": "inversion",
    "debiased_loss": "objective",
    "decode_video": "latents",
    "diffusion_loss": "objective",
    "encode_video": "latents",
    "invert_latents": "inversion",
    "noisy_latents": "objective",
    "sample_noise": "noise",
    "training_target": "objective",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'rcv.diffusion' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rcv.diffusion.{_HOME[name]}"), name)
