"""The commands of `rcv`. Each is a thin layer over a function of the library; flags are made from its settings."""

import os
import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from rcv.cli.bench import bench
from rcv.cli.clips import clips
from rcv.cli.evaluate import evaluate
from rcv.cli.options import ConfigError, command
from rcv.cli.plan import plan
from rcv.cli.reproduce import reproduce_command
from rcv.cli.results import export, push
from rcv.cli.study import study
from rcv.cli.web import serve_app
from rcv.cli.world import world
from rcv.diffusion.config import GenerateConfig, InvertConfig
from rcv.training.config import FinetuneConfig

HELP = {"context_settings": {"help_option_names": ["-h", "--help"]}, "rich_markup_mode": "markdown"}
app = typer.Typer(name="rcv", no_args_is_help=True, pretty_exceptions_enable=False, **HELP)
app.add_typer(world, name="world")
app.add_typer(bench, name="bench")
app.add_typer(study, name="study")
console = Console()


def say_written(path):
    """Name a result in one line that can be copied whatever the terminal's width."""
    console.print(f"wrote {path}", markup=False, soft_wrap=True)


def finetune(config):
    """Finetune a text-to-image model on a few clips of one motion.

    Without `--clips` a theme of the motion world is rendered, without `--base` the embedded model is used.

    Examples:

        rcv finetune --theme "birds flying" --output runs/birds

        rcv finetune --clips my-clips --base ~/models/stable-diffusion-v1-4 --frames 16 --steps 300 --output runs/mine

        rcv finetune --config runs/mine/config.yaml --steps 600 --output runs/longer

        rcv finetune --config 16gb --clips my-clips --base ~/models/stable-diffusion-v1-4 --output runs/mine

        rcv finetune --preset streaming --frames 64 --window 16 --output runs/long
    """
    from accelerate import PartialState

    from rcv.training import finetune as run

    result = run(config)
    if PartialState().is_main_process:
        console.print(
            f'The adapter is {result.adapter}. Next: rcv generate "a prompt" --adapter {config.output}',
            markup=False,
            soft_wrap=True,
        )


def generate(config):
    """Generate videos from text, with an adapter that `rcv finetune` wrote.

    Examples:

        rcv generate "a red elephant walking in the desert" --adapter runs/demo --output elephant.gif

        rcv generate "a fox walking" "a bear walking" --adapter runs/demo --noise shared --noise-alpha 0.2

        rcv generate "a fox walking" --adapter runs/long --frames 256 --window 16 --hold 0.5
    """
    from rcv.diffusion.generate import generate as run

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("denoising", total=config.steps)
        outputs = run(config, progress=lambda step, steps: bar.update(task, completed=step, total=steps))
    for output in outputs:
        say_written(output)


def invert(config):
    """Invert a clip into initial latents by DDIM: guidance by structure, as Tune-A-Video does it.

    Example:

        rcv invert clip.mp4 --adapter runs/demo --frames 16 --output latents.safetensors

        rcv generate "a panda walking" --adapter runs/demo --latents latents.safetensors
    """
    from rcv.diffusion.generate import invert as run

    say_written(run(config))


app.command()(command(FinetuneConfig, finetune))
app.command()(command(GenerateConfig, generate, arguments=("prompts",)))
app.command()(command(InvertConfig, invert, arguments=("video",)))
app.command()(clips)
app.command()(plan)
app.command()(export)
app.command()(push)
app.command()(evaluate)
app.command("app")(serve_app)
app.command("reproduce")(reproduce_command)


@app.command()
def convert(
    source: Path = typer.Argument(
        ..., help="Checkpoint of Tune-A-Video or of the paper's program: folder or file."
    ),
    output: Path = typer.Argument(..., help="Folder to write."),
    preset: str | None = typer.Option(
        None, help="Preset of the result; read off the checkpoint's keys if left out."
    ),
    allow_pickle: bool = typer.Option(False, help="Read .bin, .pt and .ckpt files (weights only)."),
):
    """Convert a published checkpoint into a VideoUNet folder.

    Example:

        rcv convert tune-a-video/unet converted --allow-pickle
    """
    from rcv.models.convert import convert as run

    run(source, output, preset=preset, allow_pickle=allow_pickle)
    say_written(output)


@app.command()
def doctor(
    as_json: bool = typer.Option(False, "--json", help="Print JSON instead of tables."),
):
    """Show devices, versions and which backend would run each operation, and why the others would not."""
    from rcv import doctor as diagnosis

    report = diagnosis.report()
    if as_json:
        print(diagnosis.to_json(report))
    else:
        diagnosis.render(report, console)


def main(arguments=None):
    """Run the command line (`arguments`, or those of the process) and exit.

    Errors that a user can mend are one line on standard error, without a traceback.
    """
    # read when these libraries are imported, which the commands do: their notices are not about what the user asked for
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app(arguments)
    except (ConfigError, ValueError, OSError, MemoryError) as error:
        Console(stderr=True).print(
            f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
