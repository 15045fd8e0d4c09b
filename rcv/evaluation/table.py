"""An Evaluation as a table of the terminal, as JSON and as CSV."""

import csv
import json
import math

from rich.markup import escape
from rich.table import Table

from rcv.evaluation.scores import METRICS
from rcv.video import replacing

COLUMNS = {
    "clip_score": ("Score", "{:.2f}"),
    "clip_temp": ("Temp", "{:.2f}"),
    "warping_error": ("warp", "{:.3f}"),
    "motion": ("motion", "{:.3f}"),
    "background_consistency": ("backgr.", "{:.3f}"),
    "flicker": ("flicker", "{:.3f}"),
}
LEGEND = (
    "Score, Temp: CLIP-Score and CLIP-Temp by {clip}; warp: warping error x 1000 by {flow}, lower is better; "
    "motion: per cent of the shorter side a frame; backgr.: background consistency"
)


def evaluation_table(evaluation):
    """Return the main metrics as a rich Table: a row a video, and the means."""
    # escaped: names may hold what rich takes for its markup
    legend = escape(LEGEND.format(clip=evaluation.clip, flow=evaluation.flow))
    table = Table("video", *(title for title, _ in COLUMNS.values()), caption=legend, caption_justify="left")
    judged = evaluation.reference_motion is not None
    if judged:
        table.add_column("as ref.")
    for column in table.columns[1:]:
        column.justify = "right"
    for video in evaluation.videos:
        cells = _cells(video.scores) if video.scores else ["-"] * len(COLUMNS)
        style = "red" if video.problems else ""
        table.add_row(
            escape(video.path.name), *cells, *([_answer(video.moves_as_reference)] * judged), style=style
        )
    table.add_section()
    table.add_row("mean", *_cells(evaluation.means), *([_answer(evaluation.moves_as_reference)] * judged))
    return table


def motion_verdict(evaluation):
    """Return the sentence that says whether CLIP-Temp and warping error count, or what it takes to know."""
    if evaluation.reference_motion is None:
        return (
            "A still video wins CLIP-Temp, warping error and flicker: compare motion with that of true clips "
            "(--reference) before you compare them."
        )
    moving = [video for video in evaluation.videos if video.moves_as_reference is not None]
    alike = sum(video.moves_as_reference for video in moving)
    within, count = (
        ("lies within", "count") if evaluation.moves_as_reference else ("is not within", "do not count")
    )
    return (
        f"The mean motion {evaluation.means['motion']:.3f} % {within} 20 % of the true clips' "
        f"{evaluation.reference_motion:.3f} %, so CLIP-Temp, warping error and flicker {count} for the set. "
        f"By themselves, {alike} of {len(moving)} videos move within 20 % of it."
    )


def write_json(path, evaluation):
    """Write everything that was found, as one object; what is undefined is null."""
    document = {
        "clip": evaluation.clip,
        "flow": evaluation.flow,
        "metrics": METRICS,
        "shape": evaluation.shape,
        "reference_motion": evaluation.reference_motion,
        "moves_as_reference": evaluation.moves_as_reference,
        "means": _finite(evaluation.means),
        "videos": [
            {
                "video": str(video.path),
                "prompt": video.prompt,
                "shape": video.shape,
                "scores": video.scores and _finite(video.scores),
                "undefined": video.scores.reasons if video.scores else {},
                "moves_as_reference": video.moves_as_reference,
                "problems": video.problems,
            }
            for video in evaluation.videos
        ],
        "problems": evaluation.problems,
    }
    with replacing(path) as part:
        part.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path, evaluation):
    """Write one row a video; what is undefined is empty."""
    with replacing(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["video", "prompt", "frames", "height", "width", *METRICS, "moves_as_reference", "problems"]
        )
        for video in evaluation.videos:
            scores = _finite(video.scores or dict.fromkeys(METRICS, math.nan))
            writer.writerow(
                [video.path, video.prompt, *(video.shape or (None,) * 3), *scores.values()]
                + [video.moves_as_reference, "; ".join(video.problems)]
            )  # fmt: skip


def _cells(scores):
    cells = []
    for name, (_, form) in COLUMNS.items():
        value = scores[name] * (1000 if name == "warping_error" else 1)
        cells.append(form.format(value) if math.isfinite(value) else "-")
    return cells


def _answer(moves):
    return {True: "yes", False: "no", None: "-"}[moves]


def _finite(scores):
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}
