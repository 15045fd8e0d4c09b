"""`rcv world`: the motion world's clips, its embedded model and its CLIP."""

from pathlib import Path

import typer

from rcv.cli.options import command
from rcv.world.pretrain import ClipConfig, PretrainConfig

world = typer.Typer(
    no_args_is_help=True, help="Render clips of the motion world, train its text-to-image model and its CLIP."
)


@world.command()
def render(
    theme: str = typer.Option("animal walking", help="One of the themes that `rcv world themes` lists."),
    count: int = typer.Option(8, min=1, help="Clips."),
    frames: int = typer.Option(16, min=1, help="Frames a clip."),
    height: int = typer.Option(64, min=16, help="Pixels."),
    width: int = typer.Option(64, min=16, help="Pixels."),
    seed: int = typer.Option(0, min=0, help="Other seeds give other subjects, colours and backgrounds."),
    output: Path = typer.Option(Path("clips"), help="Folder for NAME.mkv and NAME.txt."),
):
    """Render captioned clips of one theme.

    Example:

        rcv world render --theme "horse running" --count 12 --height 128 --width 192 --output horses
    """
    from rcv.world import write_clips

    for path in write_clips(output, theme, count=count, seed=seed, frames=frames, size=(height, width)):
        typer.echo(path)


@world.command()
def themes():
    """List the themes."""
    from rcv.world import THEMES

    for theme in THEMES:
        typer.echo(theme)


@world.command()
def evaluate(
    model: Path | None = typer.Argument(None, help="Model folder; the embedded model if left out."),
    count: int = typer.Option(64, min=1, help="Captions, none of whose combinations was trained on."),
    seed: int = typer.Option(0, min=0, help="Of the captions and the noise."),
    steps: int = typer.Option(30, min=1, help="Denoising steps."),
    guidance: float = typer.Option(5.0, min=0, help="Classifier-free guidance."),
    output: Path = typer.Option(Path("runs/world-evaluation"), help="Folder for verdicts.csv and sheet.png."),
):
    """Judge by rules on pixels how often the model draws what an unseen caption names.

    Example:

        rcv world evaluate --count 64 --output runs/judged
    """
    from rcv.world.evaluate import evaluate_model

    report = evaluate_model(model, count=count, seed=seed, steps=steps, guidance=guidance, output=output)
    for theme, (color, shape, pictures) in report.by_theme().items():
        typer.echo(f"{theme:18} colour {color:6.1%}  shape {shape:6.1%}  of {pictures}")
    typer.echo(f"{'all':18} colour {report.color:6.1%}  shape {report.shape:6.1%}  of {len(report.rows)}")
    typer.echo(f"wrote {output / 'sheet.png'}")


def pretrain(config):
    """Train the embedded text-to-image model on frames of the motion world (resumes where it stopped).

    Example:

        rcv world pretrain --output runs/world
    """
    from rcv.world.pretrain import pretrain as run

    run(config)


def pretrain_clip(config):
    """Train the motion world's small CLIP, which `rcv evaluate` measures with (resumes where it stopped).

    Example:

        rcv world pretrain-clip --output runs/clip
    """
    from rcv.world.pretrain.clip import pretrain_clip as run

    typer.echo(f"wrote {run(config)}")


world.command()(command(PretrainConfig, pretrain))
world.command("pretrain-clip")(command(ClipConfig, pretrain_clip))


@world.command("evaluate-clip")
def evaluate_clip(
    clip: Path | None = typer.Argument(None, help="Folder of a CLIP model; the motion world's if left out."),
    groups: int = typer.Option(
        4, min=1, max=4, help="Groups of 64 frames, none of whose combinations was trained on."
    ),
    seed: int = typer.Option(0, min=0, help="Of the scenes and the times that the frames show."),
):
    """Measure how often the nearest caption is a frame's own: by colour, subject, place, and among 64 captions.

    Example:

        rcv world evaluate-clip --groups 4
    """
    from rcv.evaluation.clip import load_clip
    from rcv.world.retrieval import measure_retrieval

    found = measure_retrieval(load_clip(clip), groups, seed)
    for name, share in (
        ("colour, 1 of 11", found.color),
        ("subject, 1 of the theme's", found.subject),
        ("place, 1 of 10", found.place),
        ("caption, 1 of 64", found.caption),
    ):
        typer.echo(f"{name:26} {share:6.1%} of {found.frames}")
