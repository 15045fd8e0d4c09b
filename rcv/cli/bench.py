"""`rcv bench`: how fast the operations run here, against their rivals."""

import csv
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

bench = typer.Typer(help="Measure the operations here against their rivals; compare two measurements.")
console = Console()


@bench.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    output: Path = typer.Option(Path("runs/bench"), help="Folder for results.json, .md, .csv and the plots."),
    device: str | None = typer.Option(None, help="cuda or cpu; a GPU if there is one."),
    shapes: str | None = typer.Option(
        None, help="full (Stable Diffusion's) or quick; quick on a CPU if left out."
    ),
    parts: str | None = typer.Option(
        None, help="Some of check, ops, steps, memory; ops,steps if left out, check,ops for a report."
    ),
    budget: float = typer.Option(
        200, min=1, help="Seconds; what does not fit is left out, the least telling first."
    ),
    report: Path | None = typer.Option(
        None, help="Write one file (.md) to send back instead: what is right here, then how fast it is."
    ),
):
    """Measure every operation, forward and backward, in turn with its rivals, each checked against float64 first.

    Example:

        rcv bench --output runs/bench

        rcv bench --report v100.md --budget 900

        rcv bench compare runs/before runs/after
    """
    if context.invoked_subcommand is not None:
        return
    if report is not None and report.suffix != ".md":
        raise ValueError(f"--report {report}: a report is Markdown, its name ends in .md")
    import torch

    from rcv.benchmarks import gpu_suite
    from rcv.benchmarks.plots import write_plots
    from rcv.benchmarks.results import load

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if report is not None:
        _report(report, device, shapes, parts, budget)
        return
    arguments = [
        "--out",
        str(output),
        "--parts",
        parts or "ops,steps",
        "--budget-s",
        str(budget),
        "--device",
        device,
    ]
    gpu_suite.main([*arguments, *(["--shapes", shapes] if shapes else [])])
    results = load(output)
    write_csv(output / "results.csv", results.rows)
    plots = write_plots(results, output)
    console.print(summary(results))
    for path in (output / "results.md", output / "results.csv", *plots):
        console.print(f"wrote {path}", markup=False, soft_wrap=True)


def _report(path, device, shapes, parts, budget):
    from rcv.benchmarks.report import PARTS, write_report

    results = write_report(path, device, shapes, parts or PARTS, budget)
    failed = [row for row in results.rows if row.status == "failed" and row.candidate.startswith("rcv:")]
    console.print(f"wrote {path}: attach it to an issue of the project", markup=False, soft_wrap=True)
    if failed:
        raise ValueError(f"{len(failed)} results of rcv's own are wrong here: {path} says which")


@bench.command()
def compare(
    old: Path = typer.Argument(..., help="Folder that `rcv bench` wrote, or a report."),
    new: Path = typer.Argument(..., help="Another one."),
    slower: float = typer.Option(
        0.0,
        min=0,
        help="Fail if one of rcv's own medians grew by more than this share (0.1: 10 %); 0: never.",
    ),
):
    """Show how medians changed from one measurement to another.

    Example:

        rcv bench compare runs/before runs/after --slower 0.1
    """
    from rcv.benchmarks.report import load_report
    from rcv.benchmarks.results import load

    before, after = (_by_key(load_report(path) if path.is_file() else load(path)) for path in (old, new))
    shared = [key for key in before if key in after]
    if not shared:
        raise ValueError(f"{old} and {new} have no measurement in common")
    table = Table("operation", "case", "candidate", "old ms", "new ms", "new / old")
    grown = []
    for key in shared:
        first, second = before[key], after[key]
        ratio = second.median_s / first.median_s
        apart = second.q1_s > first.q3_s or second.q3_s < first.q1_s  # quartiles that overlap show noise
        style = "" if not apart else "red" if ratio > 1 else "green"
        table.add_row(
            f"{first.operation} {first.direction}", first.shape, first.candidate,
            f"{first.median_s * 1e3:.3g}", f"{second.median_s * 1e3:.3g}", f"{ratio:.2f}", style=style,
        )  # fmt: skip
        if slower and apart and ratio > 1 + slower and first.candidate.startswith("rcv:"):
            grown.append(f"{first.operation} {first.direction} {first.shape} {first.candidate}: {ratio:.2f}x")
    console.print(table)
    if grown:
        raise ValueError(f"slower than before: {'; '.join(grown)}")


def summary(results):
    """Return a rich Table: rcv's fastest against the fastest rival of each case, and the bound's share."""
    from rcv.benchmarks.results import own_and_rivals

    table = Table(
        "operation",
        "case",
        "rcv ms",
        "fastest rival",
        "its ms",
        "speed-up",
        "of the bound",
        title=results.label,
    )
    for own, rivals in own_and_rivals(results.rows):
        best = (own or rivals)[0]
        rival = rivals[0] if own and rivals else None
        speed_up = rival.median_s / best.median_s if rival else None
        table.add_row(
            f"{best.operation} {best.direction}",
            best.shape if own else f"{best.shape}, {best.candidate}",
            f"{best.median_s * 1e3:.3g}",
            rival.candidate if rival else "",
            f"{rival.median_s * 1e3:.3g}" if rival else "",
            f"{speed_up:.2f}x" if rival else "",
            f"{best.share:.0%}" if best.share else "",
            style="green" if rival and speed_up >= 1 else "",
        )
    return table


def write_csv(path, rows):
    """Write one line a row, with its fields as columns."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        lines = [asdict(row) for row in rows]
        writer = csv.DictWriter(file, fieldnames=list(lines[0]) if lines else ["operation"])
        writer.writeheader()
        writer.writerows(lines)


def _by_key(results):
    return {(*row.case, row.candidate): row for row in results.rows if row.status == "timed"}
