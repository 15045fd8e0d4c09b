"""`rcv app`: the local app."""

from pathlib import Path

import typer


def serve_app(
    folder: Path = typer.Option(Path("runs"), help="Where runs, videos and uploaded clips go."),
    port: int = typer.Option(7860, min=0, max=65535, help="Port on this machine; 0: any that is free."),
):
    """Finetune, generate and compare in a browser, on this machine alone. Needs `pip install 'rcv-video[app]'`.

    Example:

        rcv app --folder runs
    """
    from rcv.app import serve

    typer.echo("rcv app: starting, in some seconds ...")
    serve(folder, port, ready=lambda address: typer.echo(f"rcv app: {address} (Ctrl-C ends it; runs go on)"))
