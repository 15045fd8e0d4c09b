"""Loss curves of the embedded model's training."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rcv.training.log import Record, read_log

STAGES = ("autoencoder", "text", "denoiser")


def write_curves(folder):
    """Write FOLDER/losses.png from the stages' CSV files; each curve with its running median over 5 % of the steps."""
    figure = Figure(figsize=(9, 2.6), dpi=110, layout="constrained")
    for axes, stage in zip(figure.subplots(1, len(STAGES)), STAGES, strict=True):
        records = read_log(folder / f"{stage}.csv", Record)
        steps = np.array([record.step for record in records])
        losses = np.array([record.loss for record in records])
        width = max(1, len(losses) // 20)
        axes.plot(steps, losses, color="0.8", linewidth=0.7)
        axes.plot(
            steps, [np.median(losses[max(0, i - width) : i + 1]) for i in range(len(losses))], color="C0"
        )
        axes.set(title=stage, xlabel="step", yscale="log")
    axes.figure.supylabel("loss")
    FigureCanvasAgg(figure).print_png(folder / "losses.png")
    return folder / "losses.png"
