"""Training and denoising steps of the presets against the published programs: `python -m benchmarks.train_step`.

Every program's output and gradients are checked before anything is timed. Programs alternate within one process,
round after round; a figure is the median over rounds with its quartiles, a ratio the median of the rounds' ratios.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import torch

from .machine import described_machine
from .programs import PROGRAMS, Setting, chosen_programs
from .steps import CLOCKS, measure_growth, measure_step, paired_ratio

GROWTH = ("tune-a-video:baddbmm", "published:baddbmm", "published:sdpa", "recurrent")
MIB = 2**20


def step_table(results):
    """Return the results as a Markdown table, each beside its published program and that one with SDPA."""
    by_name = {(r.preset, r.way): r for r in results}
    rows = [
        "| program | training step, s | published / this | SDPA / this | denoising step, s | published / this "
        "| peak live MiB | of published |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        # programs that are not the paper's are measured against what they descend from
        counterpart = "tune-a-video" if r.preset in ("tune-a-video", "first-frame") else "published"
        published, sdpa = by_name.get((counterpart, "baddbmm")), by_name.get((counterpart, "sdpa"))
        rows.append(
            "| "
            + " | ".join(
                (
                    r.label,
                    _with_quartiles(r.train),
                    _times(published and published.train, r.train),
                    _times(sdpa and sdpa.train, r.train),
                    _with_quartiles(r.denoise) if r.denoise else "",
                    _times(published and published.denoise, r.denoise),
                    f"{r.peak_live_bytes / MIB:.0f}",
                    f"{r.peak_live_bytes / published.peak_live_bytes:.2f}" if published else "",
                )
            )
            + " |"
        )
    return "\n".join(rows)


def growth_table(growth):
    """Return training seconds per frame and peak live MiB over settings, a Markdown table."""
    labels = [r.label for r in growth[0][1]]
    rows = [
        "| frames x latents | " + " | ".join(f"{label}, s a frame (MiB)" for label in labels) + " |",
        "| --- |" + " --- |" * len(labels),
    ]
    for setting, results in growth:
        cells = [f"{r.train.median / setting.frames:.3f} ({r.peak_live_bytes / MIB:.0f})" for r in results]
        rows.append(f"| {setting.frames} x {setting.height}x{setting.width} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _with_quartiles(spread):
    return f"{spread.median:.3g} ({spread.lower:.3g} to {spread.upper:.3g})"


def _times(slower, faster):
    return f"{paired_ratio(slower, faster).median:.2f}" if slower and faster else ""


def main(arguments=None):
    """Measure what the command line asks for, print tables, write JSON."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    setting = Setting(
        channels=tuple(options.channels),
        layers=options.layers,
        heads=options.heads,
        text_width=options.text_width,
        frames=options.frames,
        height=options.latents,
        width=options.latents,
        checkpointing=options.checkpointing,
        device=options.device,
    )
    record = {
        **described_machine(options.device),
        "threads": options.threads,
        "clock": options.clock,
        "setting": dataclasses.asdict(setting),
    }
    print(f"{record['label']}; threads: {options.threads}; clock: {options.clock}", flush=True)
    if options.repeats:
        programs = chosen_programs(options.programs)
        results = measure_step(setting, programs, options.repeats, options.clock)
        record["steps"] = [dataclasses.asdict(r) for r in results]
        print(step_table(results), flush=True)
    if options.growth_frames or options.growth_latents:
        growth = measure_growth(
            setting,
            chosen_programs(options.growth_programs),
            options.growth_frames,
            options.growth_latents,
            options.growth_repeats,
            options.clock,
        )
        record["growth"] = [
            {"setting": dataclasses.asdict(s), "steps": [dataclasses.asdict(r) for r in rs]}
            for s, rs in growth
        ]
        print(growth_table(growth))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, default = parser.add_argument, Setting()
    add("--channels", type=int, nargs="+", default=default.channels, help="width of each UNet level")
    add("--layers", type=int, default=default.layers, help="ResNet blocks a level")
    add("--heads", type=int, default=default.heads)
    add("--text-width", type=int, default=default.text_width)
    add("--frames", type=int, default=default.frames)
    add("--latents", type=int, default=default.height, help="side of the latents")
    add("--checkpointing", action="store_true", help="gradient checkpointing")
    add("--device", default=default.device)
    add("--threads", type=int, default=1)
    add("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, where cores are shared")
    add("--repeats", type=int, default=5, help="timed rounds; 0 for growth alone")
    names = [":".join(program) for program in PROGRAMS]
    add("--programs", nargs="+", default=names, help="presets, or preset:way")
    add("--growth-frames", type=int, nargs="*", default=(), help="frame counts, such as 8 16 32 64")
    add("--growth-latents", type=int, nargs="*", default=(), help="sides of latents, such as 16 24 32 40")
    add("--growth-programs", nargs="+", default=GROWTH)
    add("--growth-repeats", type=int, default=3)
    add("--output", type=Path, help="JSON file for everything measured")
    return parser


if __name__ == "__main__":
    main()
