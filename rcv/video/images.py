"""Folders of images as videos: their order, and every kind of picture as 8-bit RGB."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FOLDER_FPS = 8.0
"""Frame rate taken for a folder of frames, which carries none."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})


class VideoError(ValueError):
    """A file or folder that cannot be read as a video; the message names it."""


def numeric_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which frame_2 comes before frame_10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in parts if part]


class ImageFolder:
    """Images of a folder in numeric order, as (index, seconds, function that loads the picture)."""

    fps = FOLDER_FPS

    def __init__(self, path: Path):
        files = [
            p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
        ]
        if not files:
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            raise VideoError(f"{path}: a folder without images; expected frames as {kinds}")
        self.files = sorted(files, key=lambda p: numeric_key(p.name))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __iter__(self):
        for index, file in enumerate(self.files):
            yield index, index / self.fps, lambda file=file: self.read(file)

    @staticmethod
    def read(file: Path) -> np.ndarray:
        if not file.is_file():  # opening a pipe would wait for ever
            raise VideoError(f"{file}: not a file (a broken link?)")
        try:
            with Image.open(file) as image:
                return _as_rgb(ImageOps.exif_transpose(image))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's own kinds of damage
            raise VideoError(f"{file}: cannot be read as an image ({error})") from error


def _as_rgb(image: Image.Image) -> np.ndarray:
    """Picture as uint8 [H,W,3]: 16-bit levels scaled instead of cut off, what is transparent on white."""
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return levels.astype(np.uint8)[..., None].repeat(3, 2)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))
