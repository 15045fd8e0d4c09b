"""`rcv reproduce`: the paper's comparison, from clips that everyone can render."""

import typer
from rich.console import Console

from rcv.cli.options import command
from rcv.reproduce.config import ReproduceConfig

console = Console()


def reproduce(config):
    """Train, sample and score the arms of a study and write the report; goes on where it stopped.

    Every cell (an arm on a theme with a seed) is kept in `--output` under a fingerprint of its settings and of the
    program. The report, report.html and report.md, is of what is there. Exit status 2: the budget ended first.

    Examples:

        rcv reproduce table1 --estimate

        rcv reproduce all --jobs 2 --output runs/table1

        rcv reproduce table1 --budget 60 --themes "animal walking" --seeds 10 --arms recurrent --arms tune-a-video
    """
    from rcv.reproduce.report import write_report
    from rcv.reproduce.schedule import compute_all, estimate

    def say(line):
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    left, trainings, hours = estimate(config)
    time = "" if not hours else f", about {hours:.1f} hours"
    say(f"{left} cells to compute, with {trainings} trainings{time}")
    if config.estimate:
        return
    complete = compute_all(config, say)
    for path in write_report(config):
        say(f"wrote {path}")
    if not complete:
        say("the budget is spent; the same command goes on from here")
        raise typer.Exit(2)


reproduce_command = command(ReproduceConfig, reproduce, arguments=("study",))
