"""The losses of a run as a picture in SVG, which a page redraws without a flicker."""

import math

from rcv.training.log import Evaluation, Record, read_log

POINTS = 300
"""A curve in a browser needs no more; longer ones are thinned out."""
WIDTH, HEIGHT = 640, 300
LEFT, TOP, RIGHT, BOTTOM = 56, 28, 24, 36
STYLES = {
    "single steps": 'stroke="#8fa8c8" stroke-width="1"',
    "moving mean": 'stroke="#1456b8" stroke-width="2.5"',
    "fixed draws": 'stroke="#c0392b" stroke-width="2" stroke-dasharray="6 3"',
    "held-out clips": 'stroke="#1e8449" stroke-width="2" stroke-dasharray="2 3"',
}
MEASURED = {"fixed draws": "eval_losses.csv", "held-out clips": "validation_losses.csv"}


def loss_curves(folder):
    """Return {name: [(step, loss)]} of a run's folder: single steps, their moving mean, and what was measured.

    Losses that are not finite are left out, names without any too.
    """
    records = [record for record in read_log(folder / "losses.csv", Record) if math.isfinite(record.loss)]
    every = max(1, math.ceil(len(records) / POINTS))
    curves, mean = {name: [] for name in STYLES}, None
    for number, record in enumerate(records):
        mean = record.loss if mean is None else 0.95 * mean + 0.05 * record.loss
        if number % every == 0 or number == len(records) - 1:
            curves["single steps"].append((record.step, record.loss))
            curves["moving mean"].append((record.step, mean))
    for name, file in MEASURED.items():
        for record in read_log(folder / file, Evaluation):
            if math.isfinite(record.eval_loss):
                curves[name].append((record.step, record.eval_loss))
    return {name: points for name, points in curves.items() if points}


def svg(curves):
    """Return curves {name: [(x, y)]} as an SVG element with axes and a legend; an empty string without any."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    columns = _ticks(min(x for x, _ in points), max(x for x, _ in points))
    rows = _ticks(min(y for _, y in points), max(y for _, y in points))

    def across(x):
        return LEFT + (x - columns[0]) / (columns[-1] - columns[0]) * (WIDTH - LEFT - RIGHT)

    def down(y):
        return HEIGHT - BOTTOM - (y - rows[0]) / (rows[-1] - rows[0]) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for x in columns:
        parts.append(_line(across(x), down(rows[0]), across(x), down(rows[-1])))
        parts.append(_text(across(x), HEIGHT - BOTTOM + 16, f"{x:g}", "middle"))
    for y in rows:
        parts.append(_line(across(columns[0]), down(y), across(columns[-1]), down(y)))
        parts.append(_text(LEFT - 6, down(y) + 4, f"{y:g}", "end"))
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 4, "step", "middle"))
    for number, (name, curve) in enumerate(curves.items()):
        style, place = f'fill="none" {STYLES[name]}', LEFT + 150 * number
        drawn = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in curve)
        parts.append(f'<polyline {style} points="{drawn}"><title>{name}</title></polyline>')
        parts.append(f'<path {style} d="M{place} 12h28"/>{_text(place + 34, 16, name, "start")}')
    label = f'role="img" aria-label="loss by step: {", ".join(curves)}"'
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" {label}>{"".join(parts)}</svg>'


def _ticks(low, high):
    """Return three to seven round numbers, evenly spaced, the first and last of which hold `low` and `high` between."""
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    size = 10 ** math.floor(math.log10((high - low) / 2))
    spacing = next(size * factor for factor in (1, 2, 5, 10) if (high - low) / (size * factor) <= 5)
    first, last = math.floor(low / spacing), math.ceil(high / spacing)
    return [round(number * spacing, 12) for number in range(first, last + 1)]


def _line(x1, y1, x2, y2):
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="currentColor" stroke-opacity="0.15"/>'


def _text(x, y, text, anchor):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" fill="currentColor">{text}</text>'
