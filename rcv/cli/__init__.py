"""The `rcv` command: `rcv --help` lists what it does."""

from rcv.cli.app import app, main

__all__ = ["app", "main"]
