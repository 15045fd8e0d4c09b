"""`rcv clips`: what a trainer would see of a folder or table of clips."""

import json as json_format
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

console = Console()


def clips(
    source: Path = typer.Argument(..., help="Folder of clips, or a JSONL or CSV file that lists them."),
    base: str = typer.Option(
        "embedded", help="Whose own size is taken without --size: as `rcv plan` names models."
    ),
    frames: int | None = typer.Option(None, min=1, help="Frames of a training sample; 16 if left out."),
    size: str | None = typer.Option(None, help="Height and width of a sample, such as 320x512."),
    buckets: list[str] = typer.Option(
        [], help="Instead of frames and size: a list such as 16x256x256,24x320x512."
    ),
    stride: int = typer.Option(1, min=1, help="Every which frame of a clip is taken."),
    fps: float | None = typer.Option(None, help="Frames a second at which clips are sampled; their own."),
    cache: str = typer.Option("auto", help="Folder where what is found out is kept, auto, or none."),
    sheet: Path | None = typer.Option(
        None, help="Write a contact sheet, a PNG: what samples show.", dir_okay=False
    ),
    json: bool = typer.Option(False, "--json", help="Print JSON instead of a table."),
):
    """List what training would see of clips: length, rate, size, bucket, caption, and what is wrong with them.

    Every clip is decoded to its end. The exit status is 1 if one has a problem.

    Examples:

        rcv clips my-clips --frames 16 --size 320x512 --sheet clips.png

        rcv clips clips.jsonl --buckets 16x256x256,24x320x512 --fps 8 --json
    """
    from rcv.cli.options import resolve
    from rcv.data.cache import open_cache
    from rcv.data.survey import survey
    from rcv.training.clips_config import ClipsConfig

    given = {"frames": frames, "size": size, "buckets": buckets, "fps": fps}
    given = {name: value for name, value in given.items() if value not in (None, [])}
    config = resolve(
        ClipsConfig, None, {"clips": source.expanduser(), "stride": stride, "cache": cache, **given}
    )
    if config.size is None:
        from rcv.planning import model_shape

        config.size = model_shape(base).size
    found = survey(config.clips, config.shapes(), config.stride, config.fps, open_cache(config.cache))
    if json:
        print(json_format.dumps(_report(found), indent=2))
    else:
        _print(found)
    if sheet is not None:
        from rcv.data.sheet import write_sheet

        write_sheet(sheet, found)
        if not json:
            console.print(f"wrote {sheet}", markup=False, soft_wrap=True)
    if any(one.problems for one in found):
        raise typer.Exit(1)


def _report(found):
    buckets = {}
    for one in found:
        if one.clip is not None:
            buckets[str(one.clip.bucket)] = buckets.get(str(one.clip.bucket), 0) + one.clip.repeats
    return {
        "clips": [one.as_dict() for one in found],
        "sound": sum(one.clip is not None for one in found),
        "buckets": buckets,
        "problems": list(dict.fromkeys(problem for one in found for problem in one.problems)),
    }


def _print(found):
    report = _report(found)
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("clip", no_wrap=True, overflow="ellipsis", max_width=32)
    repeated = any(said["repeats"] > 1 for said in report["clips"])
    for name in ("frames", "fps", "size", "bucket", *(("repeats",) if repeated else ())):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("caption", no_wrap=True, overflow="ellipsis", ratio=1, min_width=12)
    for said in report["clips"]:
        known = said["size"] is not None
        used = said["used_frames"]
        frames = f"{used} of {said['frames']}" if used not in (None, said["frames"]) else str(said["frames"])
        table.add_row(
            f"[red]{_shown(said['name'])}[/]" if said["problems"] else _shown(said["name"]),
            frames if known else "",
            f"{said['fps']:g}" if known else "",
            "x".join(map(str, said["size"])) if known else "",
            said["bucket"] or "",
            *((str(said["repeats"]),) if repeated else ()),
            _shown(said["caption"] or ""),
        )
    console.print(table)
    per_bucket = ", ".join(f"{count} of {bucket}" for bucket, count in report["buckets"].items())
    console.print(
        f"{report['sound']} of {len(found)} clips can be trained on{f' ({per_bucket})' if per_bucket else ''}",
        highlight=False,
    )
    for problem in report["problems"]:
        console.print(f"[red]{_shown(problem)}[/]", highlight=False, soft_wrap=True)


def _shown(text):
    """`text` for the terminal, without what would steer it or be read as markup."""
    return escape("".join(letter if letter.isprintable() else "\ufffd" for letter in text))
