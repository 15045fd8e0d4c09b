"""rcv: recurrent causal video. Fused kernels and a trainer for few-shot text-to-video.

Names are imported on first use, so that `import rcv` does not pay for PyTorch and diffusers.
"""

import importlib

from rcv.version import __version__

_HOME = {
    "FrameTable": "rcv.ops",
    "attention": "rcv.ops",
    "backend": "rcv.ops",
    "frame_attention": "rcv.ops",
    "gated_scan": "rcv.ops",
    "mingru_scan": "rcv.ops",
    "recurrent_scan": "rcv.ops",
    "rglru_scan": "rcv.ops",
    "set_backend": "rcv.ops",
    "temporal_attention": "rcv.ops",
    "PRESETS": "rcv.models",
    "Preset": "rcv.models",
    "VideoUNet": "rcv.models",
    "NoiseConfig": "rcv.diffusion",
    "VideoPipeline": "rcv.diffusion",
    "FinetuneConfig": "rcv.training",
    "finetune": "rcv.training",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'rcv' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__():
    return __all__
