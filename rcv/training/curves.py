"""curves.png of a run: losses and learning rate over its steps."""

import os
from pathlib import Path

import numpy as np

from rcv.training.log import Evaluation, Record, read_log

EVALUATIONS = {
    "eval_losses.csv": "fixed draws of the clips",
    "validation_losses.csv": "held-out clips",
}
"""Losses that are measured now and then, by file."""


def smoothed(values, width):
    """Return the means of each value and up to `width` - 1 before it, of those that are finite."""
    values = np.asarray(values, float)
    finite = np.isfinite(values)
    sums, counts = np.cumsum(np.where(finite, values, 0.0)), np.cumsum(finite)
    before = np.arange(len(values)) - width
    earlier_sums, earlier_counts = (
        np.where(before >= 0, totals[np.maximum(before, 0)], 0) for totals in (sums, counts)
    )
    return (sums - earlier_sums) / np.maximum(1, counts - earlier_counts)


def write_curves(folder):
    """Write FOLDER/curves.png from the CSV files of a run's folder; returns its path, None where no step was logged.

    Above the loss of every step (grey), its running mean, and the losses that are measured at checkpoints; below the
    learning rate and the gradients' norm.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    class PlainLog(LogFormatter):
        """0.06 instead of 6 x 10^-2."""

        def __call__(self, value, position=None):
            return f"{value:g}" if super().__call__(value, position) else ""

    folder = Path(folder)
    records = read_log(folder / "losses.csv", Record)
    if not records:
        return None
    steps = [record.step for record in records]
    losses = np.array([record.loss for record in records])
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot(steps, losses, color="0.8", linewidth=0.7, label="step")
    width = max(20, len(steps) // 20)
    above.plot(steps, smoothed(losses, width), color="C0", label=f"mean of {width} steps")
    for number, (name, label) in enumerate(EVALUATIONS.items(), 1):
        measured = read_log(folder / name, Evaluation)
        if measured:
            above.plot(
                *zip(*measured, strict=True), color=f"C{number}", marker="o", markersize=3, label=label
            )
    if (losses[np.isfinite(losses)] > 0).any():
        above.set_yscale("log")
        above.yaxis.set_major_formatter(PlainLog())
        above.yaxis.set_minor_formatter(PlainLog(minor_thresholds=(2, 0.5)))
    above.set_ylabel("loss")
    figure.legend(fontsize="small", loc="outside upper center", ncols=4)
    below.plot(steps, [record.learning_rate for record in records], color="C3")
    below.set(xlabel="step", ylim=(0, None))
    below.set_ylabel("learning rate", color="C3")
    norms = below.twinx()
    norms.plot(steps, [record.gradient_norm for record in records], color="0.6", linewidth=0.7)
    norms.set_ylabel("gradient norm", color="0.4")
    norms.set_ylim(0, None)
    path, temporary = folder / "curves.png", folder / ".curves.png.tmp"
    FigureCanvasAgg(figure).print_png(temporary)
    os.replace(temporary, path)
    return path
