"""`rcv study`: a blind user study on one machine."""

from pathlib import Path

import typer

study = typer.Typer(no_args_is_help=True, help="Let people rate blind pairs of videos in a browser.")
FOLDER = typer.Argument(..., help="ARM/NAME.mp4 (.webm, .gif), prompts in prompts.json or NAME.txt.")
ANSWERS = typer.Option(
    None, help="SQLite file of the answers; FOLDER/answers.sqlite if left out.", dir_okay=False
)


def answers_of(folder, answers):
    """Return the Answers in a file, or in the folder's own."""
    from rcv.study import Answers

    return Answers(answers or folder / "answers.sqlite")


@study.command()
def serve(
    folder: Path = FOLDER,
    prompts: Path | None = typer.Option(None, help="JSON file {NAME: prompt}.", dir_okay=False),
    answers: Path | None = ANSWERS,
    seed: int = typer.Option(0, min=0, help="With a rater's name it determines order and sides."),
    host: str = typer.Option("127.0.0.1", help="Address to serve at; 0.0.0.0 lets other machines in."),
    port: int = typer.Option(7870, min=0, max=65535, help="Port; 0: any that is free."),
):
    """Serve the page of a study until it is interrupted; started again, it goes on.

    Every name's videos are shown in pairs, blind, in an order and on sides that are each rater's own. Each answer is on
    the disk when the page says so.

    Example:

        rcv study serve comparison
    """
    from rcv.study import find_pairs, make_server

    pairs, notes = find_pairs(folder, prompts)
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    store = answers_of(folder, answers)
    with make_server(store, store.bind(pairs, seed), host, port) as server:
        typer.echo(f"rcv study: {len(pairs)} pairs at http://{host}:{server.server_port} (Ctrl-C ends it)")
        server.serve_forever()


@study.command()
def export(
    folder: Path = FOLDER,
    answers: Path | None = ANSWERS,
    output: Path = typer.Option(Path("answers.csv"), help="CSV file.", dir_okay=False),
):
    """Write all answers as CSV, a line a rater, video and question.

    Example:

        rcv study export comparison --output answers.csv
    """
    import csv

    from rcv.study.answers import Row
    from rcv.video import replacing

    rows = answers_of(folder, answers).rows()
    with replacing(output) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)
    typer.echo(f"wrote {output}: {len(rows)} answers of {len({row.rater for row in rows})} raters")


@study.command()
def results(
    folder: Path = FOLDER,
    answers: Path | None = ANSWERS,
    as_json: bool = typer.Option(False, "--json", help="Print JSON instead of tables."),
):
    """Print mean ratings with 95 % intervals, and the paired test between every two arms.

    Raters are the sample: their ratings are averaged first, intervals are a bootstrap over raters, p is a permutation
    test of the raters' mean differences.

    Example:

        rcv study results comparison
    """
    import json

    from rich.console import Console

    from rcv.study import summary

    means, differences = summary(answers_of(folder, answers).rows())
    if as_json:
        tables = {"means": means, "differences": differences}
        print(json.dumps({name: [row._asdict() for row in rows] for name, rows in tables.items()}, indent=2))
        return
    if not means:
        typer.echo("no answers yet")
        return
    console = Console()
    console.print(_table("Mean ratings (1 to 5)", means))
    if differences:
        console.print(_table("Differences, first minus second", differences))


def _table(title, rows):
    from rich.table import Table

    table = Table(title=title)
    for name in rows[0]._fields:
        table.add_column(name)
    for row in rows:
        cells = (f"{value:.3g}" if isinstance(value, float) else value for value in row)
        table.add_row(*("" if cell is None else str(cell) for cell in cells))
    return table
