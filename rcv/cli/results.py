"""What becomes of a run's results: `rcv export` and `rcv push`."""

from pathlib import Path

import typer
from rich.console import Console

console = Console()


def export(
    run: Path = typer.Argument(..., help="Folder of a run, or an adapter's file."),
    output: Path | None = typer.Argument(
        None, help="Folder to write: RUN/pipeline, or RUN/lora with --lora, if left out."
    ),
    lora: bool = typer.Option(False, help="Write a LoRA of the attention projections instead of a pipeline."),
    rank: int | None = typer.Option(
        None,
        min=1,
        help="Largest rank of a layer of the LoRA; as many as it has, which is exact, if left out.",
    ),
    base: str | None = typer.Option(None, help="The base, if it is no longer where the adapter says."),
    precision: str = typer.Option("fp32", help="fp32, fp16 or bf16 of the pipeline's frozen weights."),
):
    """Write a run's result for use elsewhere: a whole pipeline, or a LoRA for image pipelines.

    The pipeline holds all that the run trained; `VideoPipeline.from_pretrained` and `rcv generate --base` read it. A
    LoRA holds the attention's query projections alone, for `StableDiffusionPipeline.load_lora_weights`: the look of the
    clips, without their motion.

    Examples:

        rcv export runs/mine my-pipeline --precision fp16

        rcv export runs/mine --lora --rank 16
    """
    from rcv.training.export import export_pipeline, export_run_lora

    folder = run if run.is_dir() else run.parent
    if not lora:
        if rank is not None:
            raise ValueError("rank is that of a LoRA; give --lora with it")
        written = export_pipeline(run, output or folder / "pipeline", base, precision)
        console.print(f"wrote {written}", markup=False, soft_wrap=True)
        return
    made = export_run_lora(run, output or folder / "lora", rank, base)
    console.print(
        f"wrote {made.path}\n{made.layers} layers of rank {made.rank} at most hold {made.kept:.1%} of what training "
        f"changed in them (squared norm).",
        markup=False,
        soft_wrap=True,
    )
    if made.left_out:
        kinds = sorted({_kind(name) for name in made.left_out})
        console.print(
            f"Left out, since an image model has no place for them: {len(made.left_out)} weights of the motion "
            f"({', '.join(kinds)}).",
            markup=False,
            soft_wrap=True,
        )


def _kind(name):
    """The layer of a transformer block that a weight belongs to, such as attn_temp or attn1.memory."""
    layer, *rest = name.rpartition(".transformer_blocks.")[2].split(".")[1:]
    return f"{layer}.{rest[0]}" if layer == "attn1" else layer


def push(
    run: Path = typer.Argument(..., help="Folder of a run, or what `rcv export` wrote."),
    repo: str = typer.Argument(..., help="NAME or OWNER/NAME on the Hugging Face Hub; made if missing."),
    public: bool = typer.Option(False, help="Let everybody see a repository that is made."),
    license: str | None = typer.Option(
        None, help="Licence of the adapter as the Hub names it, such as cc-by-4.0, for its model card."
    ),
    message: str | None = typer.Option(None, help="Of the commit."),
):
    """Upload a run's adapter with its model card and samples, or an exported folder, to the Hugging Face Hub.

    The token is the one of `hf auth login`, or HF_TOKEN. Clips, checkpoints and the log stay here.

    Example:

        rcv push runs/mine my-name/walking-animals --license cc-by-4.0
    """
    from rcv.training.publish import push as run_push

    address = run_push(run, repo, public=public, license=license, message=message)
    console.print(f"uploaded: {address}", markup=False, soft_wrap=True)
