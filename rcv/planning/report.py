"""A plan as a person reads it: a table, sentences, a plot."""

import itertools
from pathlib import Path

from rich.table import Table

from rcv.planning.budget import GIB
from rcv.planning.plans import KINDS, PASSING

SLOWER = {
    "none": "",
    "selective": "about 7 % slower than none",
    "full": "about a third slower than none",
    "offload": "as full, with copies to main memory beside it",
}
"""Time of a training step, measured on a CPU: docs/memory.md."""
COLOURS = ("#264653", "#2a6f77", "#2a9d8f", "#8ab17d", "#babb74", "#e9c46a", "#f4a261", "#e76f51", "#c44536")


def gib(size):
    """Return bytes as text in GiB."""
    return f"{size / GIB:.2f} GiB"


def described(plan):
    """Return one line that names a plan's setting."""
    s = plan.setting
    what = f"gradient checkpointing {s.checkpointing}" if plan.task == "train" else "generation"
    windows = f" in windows of {s.window}" if s.window and s.window < s.frames else ""
    return (
        f"{s.model.name}, {s.preset.name}, {s.frames} frames of {s.height}x{s.width}{windows}, batch {s.batch}, "
        f"{s.precision}, {what}"
    )


def table(plan):
    """Return a rich Table of the bytes at the peak by kind."""
    table = Table(title=described(plan))
    table.add_column("at the peak (computed)")
    table.add_column("GiB", justify="right")
    for kind in KINDS:
        if kind in plan.at_peak:
            table.add_row(kind, f"{plan.at_peak[kind] / GIB:.2f}")
    table.add_section()
    table.add_row("tensors", f"{plan.peak / GIB:.2f}")
    if plan.budget.context:
        gaps = plan.needed - plan.budget.context - plan.peak
        table.add_row("gaps of the caching allocator, at least", f"{gaps / GIB:.2f}")
        table.add_row("CUDA context (estimated)", f"{plan.budget.context / GIB:.2f}")
        table.add_section()
    table.add_row("needed", f"{plan.needed / GIB:.2f}", style="bold")
    return table


def verdict(plan):
    """Return sentences: what is at work at the peak, and whether the budget holds it."""
    lines = [f"The peak is in the {plan.stage}, in {plan.module or 'no module of the UNet'}."]
    if plan.budget.context:
        lines.append(
            f"Unlimited, the allocator would reserve {gib(plan.reserved)} beside the context "
            "(PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True avoids most of the gaps)."
        )
    if plan.budget.total is not None:
        left = plan.budget.total - plan.needed
        name = plan.budget.name
        lines.append(
            f"It fits in {name} ({gib(plan.budget.total)}): {gib(left)} are left."
            if plan.fits
            else f"It does not fit in {name} ({gib(plan.budget.total)}): {gib(-left)} are missing."
        )
    return lines


def advised(plan, fitting, leanest):
    """Return sentences for a plan that does not fit: what would, the cheapest in time first, or what is in the way.

    Parameters
    ----------
    fitting, leanest
        As `rcv.planning.advice` returns them.
    """
    lines = [f"This fits: {_change(plan, one)}, which needs {gib(one.needed)}." for one in fitting]
    if not fitting:
        still = {kind: size for kind, size in leanest.at_peak.items() if kind not in PASSING}
        largest = max(still, key=still.get)
        lines.append(
            f"Nothing fits: one frame needs {gib(leanest.needed)}, of which {gib(leanest.resident)} lie still whatever "
            f"the settings ({largest}: {gib(still[largest])}) and {gib(leanest.budget.context)} are the CUDA context. "
            f"A smaller size or another precision than {plan.setting.precision} may help."
        )
    return lines


def _change(plan, other):
    before, after = plan.setting, other.setting
    flags = (
        ("precision", before.precision, after.precision),
        ("batch-size", before.batch, after.batch),
        ("gradient-checkpointing", before.checkpointing, after.checkpointing),
        ("decode-chunk-size", before.decode_chunk, after.decode_chunk),
        ("window", before.window, after.window),
        ("frames", before.frames, after.frames),
    )
    changes = [f"--{flag} {new}{_price(flag, new)}" for flag, old, new in flags if old != new]
    return " with ".join(changes)


def _price(flag, value):
    return f" ({SLOWER[value]})" if flag == "gradient-checkpointing" and SLOWER[value] else ""


def write_plot(plan, path):
    """Write a PNG of memory over the step by kind, the budget as a line; returns its path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.2), dpi=110, layout="constrained")
    axis = figure.subplots()
    kinds = [kind for kind in KINDS if any(kind in sizes for _, sizes in plan.timeline)]
    heights = [[sizes.get(kind, 0) / GIB for _, sizes in plan.timeline] for kind in kinds]
    places = range(len(plan.timeline))
    colours = [COLOURS[KINDS.index(kind)] for kind in kinds]
    axis.stackplot(places, heights, labels=kinds, colors=colours, linewidth=0)
    start = 0
    for stage, points in itertools.groupby(stage for stage, _ in plan.timeline):
        width = len(list(points))
        axis.axvline(start, color="black", linewidth=0.6, linestyle=":")
        if width > len(plan.timeline) / 12:  # else there is no room for its name
            axis.annotate(stage, (start, 1.01), xycoords=("data", "axes fraction"), fontsize=8)
        start += width
    if plan.budget.usable is not None:
        axis.axhline(plan.budget.usable / GIB, color="#c1121f", linewidth=1.2)
        axis.annotate(
            f"{plan.budget.name} less the context", (1, plan.budget.usable / GIB), ha="right", va="bottom",
            xycoords=("axes fraction", "data"), fontsize=8, color="#c1121f",
        )  # fmt: skip
    axis.set(
        xlabel="allocations and frees, in their order", ylabel="GiB", xlim=(0, max(1, len(plan.timeline) - 1))
    )
    axis.set_title(f"{described(plan)} (computed)", fontsize=9, pad=16)
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path)
    return path
