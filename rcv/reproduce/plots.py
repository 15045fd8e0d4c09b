"""Plots of a study, as SVG."""

import io

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from rcv.reproduce.table import COMPARED, SCORES

OWN, OTHER, UNSURE = "#d1495b", "#3d5a80", "#b0b7c3"


def study_plots(table):
    """Return {name: SVG text} of a Table: "scores", "differences", "frames", each where there is something to show."""
    plots = {"scores": _scores(table), "differences": _differences(table), "frames": _frames(table)}
    return {
        name: _svg(figure, f"{table.study.name}-{name}")
        for name, figure in plots.items()
        if figure is not None
    }


def _svg(figure, salt):
    """The figure as SVG; equal figures give equal text."""
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _scores(table):
    """Means with intervals, a panel a score; hollow where stillness decides."""
    rows = [row for row in table.rows if row.cells > row.failed][::-1]
    own = {pair[0] for pair in table.study.pairs}
    if not rows:
        return None
    figure = Figure(figsize=(12, 1.1 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(COMPARED), sharey=True)
    for axis, name in zip(axes, COMPARED, strict=True):
        for height, row in enumerate(rows):
            color = OWN if row.arm in own else OTHER
            counts = row.counts or name not in ("clip_temp", "warping_error")
            _point(axis, row.scores[name], height, color, hollow=not counts)
        axis.set_title(SCORES[name], fontsize=10)
        axis.grid(axis="x", alpha=0.25)
    axes[0].set_yticks(range(len(rows)), [row.arm for row in rows], fontsize=9)
    return figure


def _differences(table):
    """Own minus rival on motion truth; gray where the interval holds 0."""
    found = [(" - ".join(pair), d["truth"]) for pair, d in table.shown()[1].items()][::-1]
    if not found:
        return None
    figure = Figure(figsize=(8, 1.0 + 0.32 * len(found)), layout="constrained")
    axis = figure.subplots()
    for height, (_, interval) in enumerate(found):
        _point(axis, interval, height, {1: OWN, -1: OTHER, 0: UNSURE}[interval.sign])
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(found)), [pair for pair, _ in found], fontsize=9)
    axis.set_title(f"{SCORES['truth']}, paired differences", fontsize=10)
    axis.grid(axis="x", alpha=0.25)
    return figure


def _point(axis, interval, height, color, hollow=False):
    if not np.isfinite(interval.mean):
        return
    if np.isfinite(interval.low):
        axis.plot(
            [interval.low, interval.high], [height, height], color=color, linewidth=2, solid_capstyle="round"
        )
    axis.plot(
        interval.mean, height, "o", color=color, markerfacecolor="white" if hollow else color, markersize=6
    )


def _frames(table):
    """Subject correctness by frame index, where that is the question."""
    if not table.over_time:
        return None
    rows = [row for row in table.rows if len(row.by_frame)]
    if not rows:
        return None
    presets = list(dict.fromkeys(row.arm.partition(":")[0] for row in rows))
    figure = Figure(figsize=(1.5 + 3 * len(presets), 3.2), layout="constrained")
    axes = figure.subplots(1, len(presets), sharey=True, squeeze=False)[0]
    for axis, preset in zip(axes, presets, strict=True):
        for row in rows:
            name, _, label = row.arm.partition(": ")
            if name == preset:
                axis.plot(np.arange(1, len(row.by_frame) + 1), row.by_frame, label=label, linewidth=1.5)
        axis.set_title(preset, fontsize=10)
        axis.set_xlabel("frame")
        axis.set_ylim(0, 1.02)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8)
    axes[0].set_ylabel("subject right")
    return figure
