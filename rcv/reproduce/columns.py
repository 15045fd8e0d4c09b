"""The table's columns as text, shared by the page and the Markdown."""

import math

from rcv.reproduce.table import DIFFERENCES, PARTS, QUARTERS, SCORES, STILLNESS

FIRST = ("truth", "clip_score", "clip_temp", "warping_error", "motion")
DIGITS = {"clip_score": 2, "clip_temp": 2, "motion": 2, "warping_error": 2}
MIB = 2**20
SETTINGS = (
    "base",
    "clip",
    "frames",
    "clip_count",
    "steps",
    "learning_rate",
    "prompts",
    "sampling_steps",
    "guidance_scale",
)


def headings():
    """Return the headings of the table of arms: what decides and what it costs first."""
    scores = {**SCORES, **PARTS}
    first, rest = [scores[name] for name in FIRST], [scores[name] for name in scores if name not in FIRST]
    return ["arm", *first, "training s", "peak MiB", "cells", *rest, "s a step", "cell s"]


def cells(row):
    """Return the texts of a Row, one a heading; what stillness decides is in brackets where it doesn't count."""
    rest = [name for name in (*SCORES, *PARTS) if name not in FIRST]
    return [
        row.arm,
        *(_score(row, name) for name in FIRST),
        number(row.train_seconds, 1),
        number(row.peak_bytes / MIB, 0),
        f"{row.cells} of {row.wanted}" + (f", {row.failed} diverged" if row.failed else ""),
        *(_score(row, name) for name in rest),
        number(row.step_seconds, 3),
        number(row.cell_seconds, 1),
    ]


def difference_table(table):
    """Return the heading and the rows of the paired differences, in brackets as the arms' own scores are."""
    titles = {**SCORES, **PARTS}
    return ["arms", *(titles[name] for name in DIFFERENCES)], _difference_rows(table, DIFFERENCES)


def frames_table(table):
    """Return the heading and the rows of subject correctness by quarters of the videos: arms, then differences."""
    shown = [[row.arm, *(_score(row, name) for name in QUARTERS)] for row in table.shown()[0]]
    return ["subject right", *QUARTERS.values()], [*shown, *_difference_rows(table, QUARTERS)]


def _difference_rows(table, names):
    counts = {row.arm: row.counts for row in table.rows}
    return [
        [
            " - ".join(pair),
            *(
                _bracketed(name, interval_text(d[name], signed=True), all(counts[arm] for arm in pair))
                for name in names
            ),
        ]
        for pair, d in table.shown()[1].items()
    ]


def _score(row, name):
    return _bracketed(name, interval_text(row.scores[name], DIGITS.get(name, 3)), row.counts)


def _bracketed(name, text, counts):
    return f"[{text}]" if name in STILLNESS and not counts and text != "-" else text


def interval_text(interval, digits=3, signed=False):
    """Return "mean (low to high)", the mean alone where there is no interval, "-" where there is nothing."""
    if not math.isfinite(interval.mean):
        return "-"
    sign = "+" if signed else ""
    mean = f"{interval.mean:{sign}.{digits}f}"
    if not math.isfinite(interval.low):
        return mean
    return f"{mean} ({interval.low:{sign}.{digits}f} to {interval.high:{sign}.{digits}f})"


def number(value, digits):
    """Return a number with so many digits, "-" for nan."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def described(config, table):
    """Return [(what, text)] of what the numbers of a Table belong to: settings, themes, seeds, device and versions."""
    results = [cell.result() for cell in table.cells.values()]
    devices = sorted({f"{result['device']}, {result['threads']} thread(s)" for result in results})
    versions = sorted({", ".join(f"{k} {v}" for k, v in result["versions"].items()) for result in results})
    values = config.model_dump(mode="json")
    settings = ", ".join(f"{name} {values[name]}" for name in SETTINGS if values[name] is not None)
    return [
        ("themes", ", ".join(table.study.themes)),
        ("seeds", ", ".join(map(str, table.study.seeds))),
        ("settings", settings),
        ("measured on", "; ".join(devices)),
        ("versions", "; ".join(versions)),
    ]


NOTES = (
    "Motion truth is content times movement, by rules that know the renderer (docs/table1.md); the true clips' own "
    "score is what a perfect video reaches. CLIP-Temp and warping error in brackets don't count: a still video wins "
    "them, and the arm's motion, or that of one of the two arms of a difference, is more than 20 % from the true "
    "clips'. Training seconds are of the optimizer steps; peak is what training takes beyond the process before it."
)
