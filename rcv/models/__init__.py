"""The video UNet, its presets, and the published checkpoints it can load."""

from rcv.models.convert import convert, load_published
from rcv.models.presets import PRESETS, Preset, get_preset
from rcv.models.state import CarriedState, LayerState
from rcv.models.unet import VideoUNet, VideoUNetOutput

__all__ = [
    "PRESETS",
    "CarriedState",
    "LayerState",
    "Preset",
    "VideoUNet",
    "VideoUNetOutput",
    "convert",
    "get_preset",
    "load_published",
]
