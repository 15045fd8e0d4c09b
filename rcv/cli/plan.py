"""`rcv plan`: will it fit."""

import json as json_format
from pathlib import Path

import typer
from rich.console import Console

console = Console()


def plan(
    model: str = typer.Argument(
        "sd1.4", help="sd1.4, sd1.5, sd2.1-base, sd2.1, embedded, or a pipeline's folder."
    ),
    generate: bool = typer.Option(False, "--generate", help="Plan generation instead of a training step."),
    preset: str = typer.Option("recurrent", help="What a frame attends to and what is trained."),
    frames: int = typer.Option(16, min=1, help="Frames of a video."),
    size: str | None = typer.Option(
        None, help="Height and width in pixels, such as 320x512; the model's own."
    ),
    window: int | None = typer.Option(
        None, min=1, help="Frames that the UNet sees at once; all in training, 16 in generation."
    ),
    batch_size: int = typer.Option(1, min=1, help="Videos at once."),
    precision: str = typer.Option("fp16", help="fp32, fp16 or bf16."),
    gradient_checkpointing: str = typer.Option(
        "selective", help="none, selective, full or offload: what is recomputed."
    ),
    decode_chunk_size: int = typer.Option(8, min=1, help="Frames that the VAE decodes at once."),
    memory: str = typer.Option("v100", help="A card (v100, t4, ...), an amount such as 12GiB, or cpu."),
    most_frames: bool = typer.Option(
        False, "--most-frames", help="Look for the most frames that fit, in a minute or two."
    ),
    plot: Path | None = typer.Option(
        None, help="Write a plot of memory over the step, a PNG.", dir_okay=False
    ),
    json: bool = typer.Option(False, "--json", help="Print JSON instead of a table."),
):
    """Predict the peak memory of a training step or of generation; no GPU, no weights, a few seconds.

    The exit status is 1 if it does not fit.

    Examples:

        rcv plan sd1.4 --frames 32 --size 320x512 --memory v100

        rcv plan ~/models/stable-diffusion-v1-4 --frames 64 --memory 12GiB --plot memory.png

        rcv plan sd1.4 --size 320x512 --gradient-checkpointing full --memory t4 --most-frames
    """
    from rcv import planning
    from rcv.config import parse_size
    from rcv.diffusion.config import WINDOW
    from rcv.planning import report

    shape, budget = planning.model_shape(model), planning.budget(memory)
    height, width = parse_size(size) or shape.size
    setting = planning.Setting(
        shape,
        preset=preset,
        frames=frames,
        height=height,
        width=width,
        window=window or (WINDOW if generate else None),
        batch=batch_size,
        precision=precision,
        checkpointing=gradient_checkpointing,
        decode_chunk=decode_chunk_size,
    )
    task = "generate" if generate else "train"
    found = planning.plan(task, setting, budget)
    if most_frames:
        found = planning.most_frames(task, setting, budget) or found
    fitting, leanest = ([], None) if found.fits else planning.advice(found)
    if json:
        print(json_format.dumps({**found.as_dict(), "fitting": [one.as_dict() for one in fitting]}, indent=2))
    else:
        console.print(report.table(found))
        lines = report.verdict(found) + ([] if found.fits else report.advised(found, fitting, leanest))
        for line in lines:
            console.print(line, markup=False, highlight=False)
    if plot is not None:
        report.write_plot(found, plot)
        if not json:
            console.print(f"wrote {plot}", markup=False, soft_wrap=True)
    if not found.fits:
        raise typer.Exit(1)
