"""How often pictures of the embedded model show the colour and the shape that their captions name."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from rcv.world.model import model_path
from rcv.world.rules import Verdict, judge
from rcv.world.scene import THEMES, held_out_scenes

BATCH = 16
TILE = 128
LINE = 12
SHEET_COLUMNS = 8
RIGHT, WRONG = (20, 110, 40), (190, 20, 30)


@dataclass(frozen=True)
class ModelRow:
    """One judged picture: its number in the drawing order, its caption's theme and text, and what the rules saw."""

    index: int
    theme: str
    caption: str
    verdict: Verdict


@dataclass(frozen=True)
class ModelReport:
    """Verdicts on pictures of captions whose combinations of subject, colour and background were not trained on.

    Attributes
    ----------
    color, shape : float
        Shares of pictures, in [0, 1], whose subject has the caption's colour, and the caption's silhouette.
    rows : tuple of ModelRow
    """

    color: float
    shape: float
    rows: tuple[ModelRow, ...]

    def by_theme(self):
        """Return {theme: (color, shape, pictures)} in the order of THEMES."""
        rates = {}
        for theme in THEMES:
            verdicts = [row.verdict for row in self.rows if row.theme == theme]
            if verdicts:
                rates[theme] = (*_rates(verdicts), len(verdicts))
        return rates


def evaluate_model(
    path=None, *, count=64, seed=0, steps=30, guidance=5.0, output=None, batch=BATCH, progress=None
):
    """Draw held-out captions with a text-to-image model of the motion world and judge the pictures by `rules.judge`.

    Parameters
    ----------
    path : path, optional
        StableDiffusionPipeline in diffusers' layout; None is the embedded model.
    count : int
        Captions, the themes in turn: those of `held_out_scenes(count, seed)`.
    seed : int
        Of the captions, and of the noise: picture i starts from the same noise however the pictures are batched.
    steps, guidance : int, float
        Denoising steps of the model's scheduler; guidance scale.
    output : path, optional
        Folder for verdicts.csv and sheet.png.
    progress : callable, optional
        Called with the number of pictures judged.

    Returns
    -------
    ModelReport
        What the rules themselves say of rendered, that is perfect, pictures: docs/motion-world.md.

    Raises
    ------
    ValueError
        If `count`, `batch` or `steps` is below 1.
    FileNotFoundError
        If the embedded model is missing.
    """
    for name, number in (("count", count), ("batch", batch), ("steps", steps)):
        if number < 1:
            raise ValueError(f"{name}={number}: at least 1 is needed")
    pipe = _load(path)
    scenes = held_out_scenes(count, seed)
    images, rows = [], []
    for start in range(0, count, batch):
        chosen = scenes[start : start + batch]
        captions = [scene.caption for scene in chosen]
        drawn = _draw(pipe, captions, range(start, start + len(chosen)), seed, steps, guidance)
        for index, (scene, image) in enumerate(zip(chosen, drawn, strict=True), start):
            rows.append(ModelRow(index, scene.theme, scene.caption, judge(image, scene.caption)))
        images.extend(drawn)
        if progress is not None:
            progress(len(rows))
    report = ModelReport(*_rates([row.verdict for row in rows]), tuple(rows))
    if output is not None:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        write_verdicts(folder / "verdicts.csv", report)
        write_sheet(folder / "sheet.png", images, report)
    return report


def write_verdicts(path, report):
    """Write one CSV row a picture: caption, what was seen, and whether it is right."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "theme", "caption", "color", "color_ok", "shape", "shape_ok", "overlap"])
        for row in report.rows:
            seen = row.verdict
            writer.writerow(
                [row.index, row.theme, row.caption, seen.color or "none", int(seen.color_ok)]
                + [seen.shape or "none", int(seen.shape_ok), f"{seen.overlap:.3f}"]
            )  # fmt: skip


def write_sheet(path, images, report):
    """Write the pictures with their captions, green where colour and shape are right; red names what was seen."""
    columns = min(SHEET_COLUMNS, len(images))
    lines = -(-len(images) // columns)
    high = TILE + 3 * LINE
    sheet = Image.new("RGB", (columns * TILE, lines * high), "white")
    drawing, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    for number, (image, row) in enumerate(zip(images, report.rows, strict=True)):
        left, top = number % columns * TILE, number // columns * high
        sheet.paste(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.NEAREST), (left, top))
        seen = row.verdict
        right = seen.color_ok and seen.shape_ok
        text = _wrapped(row.caption, font, TILE - 4)
        if not right:
            text.append(f"seen: {seen.color or 'nothing'} {seen.shape or ''}".strip())
        for line, words in enumerate(text[:3]):
            drawing.text(
                (left + 2, top + TILE + line * LINE), words, fill=RIGHT if right else WRONG, font=font
            )
    # few colours: a sheet in a palette is a third of the size
    sheet.quantize(192).save(path, optimize=True)


def _load(path):
    from diffusers import StableDiffusionPipeline  # seconds to import

    pipe = StableDiffusionPipeline.from_pretrained(
        Path(path) if path is not None else model_path(), dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def _draw(pipe, captions, numbers, seed, steps, guidance):
    """Return uint8 [n,H,W,3]; the noise of a picture depends on `seed` and its number alone."""
    generators = [torch.Generator().manual_seed(1_000_003 * seed + number) for number in numbers]
    drawn = pipe(
        captions, num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="np"
    )
    return np.round(drawn.images * 255).astype(np.uint8)


def _rates(verdicts):
    return tuple(
        float(np.mean([getattr(verdict, name) for verdict in verdicts])) for name in ("color_ok", "shape_ok")
    )


def _wrapped(text, font, width):
    """Return `text` broken into lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
