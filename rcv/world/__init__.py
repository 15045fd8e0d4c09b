"""The motion world: a procedural renderer of captioned clips, its pixel rules and its embedded model."""

from __future__ import annotations

from .backgrounds import BACKGROUNDS
from .palette import COLORS, PALETTE
from .render import RenderedClip, render_clip
from .scene import (
    SUBJECTS,
    THEMES,
    Motion,
    Scene,
    held_out_scenes,
    is_held_out,
    parse_caption,
    sample_scene,
    vocabulary,
)

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "PALETTE",
    "SUBJECTS",
    "THEMES",
    "Motion",
    "RenderedClip",
    "Scene",
    "held_out_scenes",
    "is_held_out",
    "model_path",
    "parse_caption",
    "render_clip",
    "sample_scene",
    "vocabulary",
    "write_clips",
]


def __getattr__(name: str):
    # Kept lazy: the embedded model and the writing of videos bring heavier imports.
    if name == "model_path":
        from .model import model_path

        return model_path
    if name == "write_clips":
        from .clips import write_clips

        return write_clips
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
