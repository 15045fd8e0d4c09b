"""The video UNet, its presets, and the published checkpoints it can load."""

from rcv.models.convert import convert, load_published
from rcv.models.presets import PRESETS, Preset, get_preset
from rcv.models.unet import VideoUNet

__all__ = ["PRESETS", "Preset", "VideoUNet", "convert", "get_preset", "load_published"]
