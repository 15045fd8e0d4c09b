"""Plots of a run: bars of all candidates, scaling over frames, roofline."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .bounds import work
from .cases import ELEMENTWISE, Case

OWN, RIVAL = "#d1495b", "#8d99ae"
MOST_PANELS = 6


def write_plots(results, folder, metadata=None):
    """Write bars.png, frames.png and roofline.png into `folder`, each only where there is something to show.

    Parameters
    ----------
    results : Results
    folder : path
    metadata : dict of str to str, optional
        Texts to store in each PNG.

    Returns
    -------
    list of pathlib.Path
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in (("bars", _bars), ("frames", _frames), ("roofline", _roofline)):
        figure = draw(results)
        if figure is not None:
            FigureCanvasAgg(figure).print_png(folder / f"{name}.png", metadata=metadata)
            written.append(folder / f"{name}.png")
    return written


def _timed(results):
    return [r for r in results.rows if r.status == "timed" and r.direction in ("forward", "backward")]


def _bars(results):
    """Medians with quartiles of every candidate; a panel an operation and direction, its first case."""
    groups = {}
    for row in _timed(results):
        groups.setdefault((row.operation, row.direction), {}).setdefault(row.case, []).append(row)
    panels = [(title, next(iter(cases.values()))) for title, cases in groups.items()]
    if not panels:
        return None
    columns = 2
    lines = -(-len(panels) // columns)
    tallest = max(len(rows) for _, rows in panels)
    figure = Figure(figsize=(11, lines * (1.0 + 0.28 * tallest)), dpi=110, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    for ((operation, direction), rows), axis in zip(panels, axes, strict=False):
        rows = sorted(rows, key=lambda row: row.median_s, reverse=True)
        medians = [row.median_s * 1e3 for row in rows]
        spread = [[(r.median_s - r.q1_s) * 1e3 for r in rows], [(r.q3_s - r.median_s) * 1e3 for r in rows]]
        colors = [OWN if row.candidate.startswith("rcv:") else RIVAL for row in rows]
        axis.barh([row.candidate for row in rows], medians, xerr=spread, color=colors, ecolor="0.3")
        if rows[0].bound_s:
            axis.axvline(rows[0].bound_s * 1e3, color="0.2", linewidth=0.8, linestyle="--")
        axis.set_title(f"{operation}, {direction}\n{rows[0].shape}", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.set_xlabel("ms (dashed: bound)", fontsize=8)
    for axis in list(axes):
        axis.remove()
    figure.suptitle(f"{results.label}: median and quartiles", fontsize=10)
    return figure


def _frames(results):
    """Time a frame over the number of frames; a panel for each shape that was timed at two or more frame counts."""
    groups = {}
    for row in _timed(results):
        shape = (row.operation, row.direction, row.tokens, row.heads, row.head_dim, row.dtype, row.table)
        groups.setdefault(shape, {}).setdefault(row.candidate, []).append(row)
    groups = {
        shape: lines
        for shape, lines in groups.items()
        if any(len({row.frames for row in rows}) > 1 for rows in lines.values())
    }
    if not groups:
        return None
    shown = list(groups.items())[:MOST_PANELS]
    lines = -(-len(shown) // 2)
    figure = Figure(figsize=(11, 3.2 * lines), dpi=110, layout="constrained")
    axes = figure.subplots(lines, 2, squeeze=False).flat
    for (shape, candidates), axis in zip(shown, axes, strict=False):
        for name, rows in candidates.items():
            rows = sorted(rows, key=lambda row: row.frames)
            own = name.startswith("rcv:")
            axis.plot(
                [row.frames for row in rows],
                [row.median_s / row.frames * 1e3 for row in rows],
                marker="o",
                markersize=3,
                label=name,
                linewidth=2 if own else 1,
                color=OWN if own else None,
            )
        operation, direction, tokens, heads, width, dtype, table = shape
        axis.set_title(f"{operation} {table}, {direction}: N{tokens} H{heads} D{width} {dtype}", fontsize=9)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xlabel("frames", fontsize=8)
        axis.set_ylabel("ms a frame", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=6)
    for axis in list(axes):
        axis.remove()
    figure.suptitle(results.label, fontsize=10)
    return figure


def _roofline(results):
    """FLOP/s over FLOP a byte of least traffic, under the device's roof, in the dtype that was timed most."""
    rows = [row for row in _timed(results) if row.operation not in ELEMENTWISE]
    rates = results.device.get("rates", {})
    dtypes = [row.dtype for row in rows]
    dtype = max(dict.fromkeys(dtypes), key=dtypes.count, default=None)
    flops, memory = rates.get(f"{dtype} FLOP/s"), rates.get("memory B/s")
    if not rows or not flops or not memory:
        return None
    figure = Figure(figsize=(7, 4.6), dpi=110, layout="constrained")
    axis = figure.subplots()
    places = []
    for row in rows:
        if row.dtype != dtype:
            continue
        own = row.candidate.startswith("rcv:")
        least = work(_case(row), row.direction)
        places.append(least.flops / least.bytes)
        axis.scatter(
            places[-1],
            least.flops / row.median_s,
            s=26 if own else 12,
            color=OWN if own else RIVAL,
            marker="o" if row.direction == "forward" else "^",
            zorder=3 if own else 2,
        )
    low, high = min(places) / 2, max(*places, flops / memory) * 2
    axis.plot([low, flops / memory, high], [memory * low, flops, flops], color="0.2", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="FLOP a byte of least traffic", ylabel="FLOP/s reached")
    axis.set_title(
        f"{results.label}, {dtype}: rcv red, rivals gray; forward dots, backward triangles", fontsize=9
    )
    return figure


def _case(row):
    names = ("operation", "frames", "tokens", "heads", "head_dim", "dtype", "videos", "table", "activation")
    return Case(**{name: getattr(row, name) for name in names})
