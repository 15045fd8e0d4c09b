"""Videos of a study as data URIs: looping clips and contact sheets, in WebP."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from rcv.world.render import FPS

MOST_FRAMES = 32
"""Of a looping clip."""
QUALITY = 85
"""A tenth of a GIF's size, and no fewer colours."""
SHEET_COLUMNS = 8
MOST_ARMS = 12


@dataclass(frozen=True)
class Shown:
    """The first prompt of a theme by the arms that have it: `clips` and `sheets` are {arm: data URI}."""

    theme: str
    seed: int
    caption: str
    clips: dict
    sheets: dict


def shown(table):
    """Return a Shown for every theme of a Table that has videos, of the first seed that most arms have.

    Arms beyond MOST_ARMS are left out: the page is to be sent by mail.
    """
    return [show for theme in table.study.themes if (show := _theme(table, theme)) is not None]


def _theme(table, theme):
    counts = {
        seed: sum((row.arm, theme, seed) in table.cells for row in table.rows) for seed in table.study.seeds
    }
    seed = max(counts, key=counts.get)
    clips, sheets, caption = {}, {}, None
    for row in table.rows:
        cell = table.cells.get((row.arm, theme, seed))
        file = None if cell is None else cell.folder / "videos.npz"
        if file is None or not file.is_file() or len(clips) == MOST_ARMS:
            continue
        with np.load(file) as stored:
            frames = stored["videos"][0]
        caption = caption or cell.result()["videos"][0]["caption"]
        clips[row.arm] = data_uri(frames[:MOST_FRAMES])
        picked = np.linspace(0, len(frames) - 1, SHEET_COLUMNS).round().astype(int)
        sheets[row.arm] = data_uri(np.concatenate(frames[picked], axis=1)[None])
    return Shown(theme, seed, caption, clips, sheets) if clips else None


def data_uri(frames):
    """Return uint8 frames [F,H,W,3] as a data URI of one picture that, with more frames than one, moves for ever."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    buffer = io.BytesIO()
    first.save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=rest,
        duration=round(1000 / FPS),
        loop=0,
        quality=QUALITY,
    )
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
