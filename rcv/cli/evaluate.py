"""`rcv evaluate`: how good videos are."""

from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress

from rcv.config import checked_name

console = Console()


def evaluate(
    videos: list[Path] = typer.Argument(
        ..., help="Video files, GIFs, arrays (.npy, .npz), folders of frames, or folders of any of these."
    ),
    prompts: str | None = typer.Option(
        None,
        help="A table of prompts (.json, .jsonl, .csv), one prompt for all (text, or a .txt file); "
        "NAME.txt beside each video if left out.",
    ),
    clip: Path | None = typer.Option(
        None, help="Folder of a CLIP model in transformers' layout; the motion world's own if left out."
    ),
    reference: list[Path] | None = typer.Option(
        None, help="True clips at the same frame rate: consistency counts where motion is like theirs."
    ),
    flow: str = typer.Option("dis", help="Optical flow: dis (OpenCV, no weights) or raft (torchvision)."),
    flow_weights: Path | None = typer.Option(None, help="File of RAFT's weights, for --flow raft."),
    device: str = typer.Option("cpu", help="Where CLIP and RAFT run: cpu or cuda."),
    json_file: Path | None = typer.Option(None, "--json", help="Write all that was found to this file."),
    csv_file: Path | None = typer.Option(None, "--csv", help="Write one row a video to this file."),
):
    """Measure videos: faithfulness to the prompt, consistency over time, warping error, motion.

    Videos that cannot be evaluated are named, the others are evaluated, and the exit status is 1.

    Examples:

        rcv evaluate fox.mp4 --prompts "a red fox walking in the desert"

        rcv evaluate generated --reference my-clips --csv scores.csv --json scores.json

        rcv evaluate generated --prompts prompts.jsonl --clip ~/models/clip-vit-base-patch32
    """
    checked_name("flow", flow, ("dis", "raft"))
    if (flow == "raft") != (flow_weights is not None):
        raise ValueError("--flow raft and --flow-weights FILE go together")
    try:
        from rcv.evaluation.evaluate import evaluate_videos
    except ImportError as error:  # of OpenCV
        raise ValueError(str(error)) from error
    from transformers.utils.logging import disable_progress_bar

    from rcv.evaluation.clip import load_clip
    from rcv.evaluation.table import evaluation_table, motion_verdict, write_csv, write_json

    disable_progress_bar()  # of loading weights: a tenth of a second
    model = load_clip(clip, device)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("evaluating", total=None)
        found = evaluate_videos(
            videos,
            model,
            prompts,
            reference or (),
            _flow(flow, flow_weights, device),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(evaluation_table(found))
    console.print(motion_verdict(found), markup=False, highlight=False)
    for path, write in ((json_file, write_json), (csv_file, write_csv)):
        if path is not None:
            write(path, found)
            console.print(f"wrote {path}", markup=False, soft_wrap=True)
    problems = found.all_problems()
    for problem in problems:
        Console(stderr=True).print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    if problems:
        raise typer.Exit(1)


def _flow(name, weights, device):
    if name == "raft":
        from rcv.evaluation.raft import RaftFlow

        try:
            return RaftFlow(weights, device)
        except ImportError as error:  # of torchvision
            raise ValueError(str(error)) from error
    from rcv.evaluation.flow import dis_flow

    return dis_flow
