"""A contact sheet of clips: what a sample of each shows, and what is wrong with the others."""

import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rcv.video import iter_frames, replacing
from rcv.video.fitting import fit

MOST_CLIPS = 48
WIDTH, HEIGHT, GAP, MARGIN, LINE = 1058, 96, 4, 8, 17
"""Pixels: of the page, of a picture, between pictures, around and of text."""
MOST_WIDTH = 171
"""Of a picture; wider ones are shown lower, so that a row has six at least."""
BLACK, GRAY, RED = (20, 20, 20), (110, 110, 110), (180, 20, 20)


def write_sheet(path, surveyed):
    """Write a PNG with a row for each of the first MOST_CLIPS clips: frames over its length, cut to its bucket.

    Parameters
    ----------
    path : Path
        Replaced if it is there.
    surveyed : list of rcv.data.survey.Surveyed
        Clips with problems are shown in red, with their pictures where they have any.
    """
    rows = [_row(found) for found in surveyed[:MOST_CLIPS]]
    if len(surveyed) > MOST_CLIPS:
        rows.append(_text_row([(f"and {len(surveyed) - MOST_CLIPS} more", GRAY)]))
    page = Image.new("RGB", (WIDTH, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        page.paste(row, (0, top))
        top += row.height
    with replacing(path) as part:
        page.save(part, format="PNG")


def _row(found):
    said, clip = found.as_dict(), found.clip
    lines = [(said["name"], RED if found.problems else BLACK)]
    if found.facts is not None:
        height, width = found.facts.size
        shape = f"{height}x{width}, {said['frames']} frames, {said['fps']:g} fps"
        lines[0] = (f"{said['name']}   {shape}" + (f"   → {clip.bucket}" if clip else ""), lines[0][1])
    if said["caption"]:
        lines.append((said["caption"], GRAY))
    lines += [(problem, RED) for problem in found.problems]
    return _text_row(lines, [] if found.facts is None else _pictures(found))


def _pictures(found):
    """Frames evenly over the clip, cut to its bucket's aspect."""
    numbers = np.asarray(found.clip.indices if found.clip else range(len(found.facts.times)))
    shown_height, shown_width = found.clip.bucket.size if found.clip else found.facts.size
    width = max(8, min(MOST_WIDTH, round(HEIGHT * shown_width / shown_height)))
    height = max(8, min(HEIGHT, round(width * shown_height / shown_width)))
    fitting = (WIDTH - 2 * MARGIN + GAP) // (width + GAP)
    chosen = numbers[np.linspace(0, len(numbers) - 1, min(fitting, len(numbers))).round().astype(int)]
    frames = {
        number: fit(frame[None], (height, width))[0]
        for number, frame in zip(sorted(set(chosen)), iter_frames(found.entry.path, chosen), strict=True)
    }
    return [Image.fromarray(frames[number]) for number in chosen]


def _text_row(lines, pictures=()):
    tallest = max((picture.height for picture in pictures), default=0)
    row = Image.new("RGB", (WIDTH, MARGIN * 2 + LINE * len(lines) + tallest), "white")
    draw, font = ImageDraw.Draw(row), _font()
    for number, (text, colour) in enumerate(lines):
        draw.text((MARGIN, MARGIN + number * LINE), _fitting(" ".join(text.split()), font), colour, font)
    left = MARGIN
    for picture in pictures:
        row.paste(picture, (left, MARGIN + LINE * len(lines)))
        left += picture.width + GAP
    return row


@functools.cache
def _font():
    """DejaVu Sans, which matplotlib brings: Pillow's own font has no letter beyond ASCII."""
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size=12)


def _fitting(text, font):
    """`text`, cut where the page ends."""
    room = WIDTH - 2 * MARGIN
    text = text[: room // 3]
    if font.getlength(text) <= room:
        return text
    while font.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…"
