"""Running Python without Triton's interpreter, which the tests' own process has: compilation is done there."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments, cache):
    """Run Python with these arguments in the repository's root; return the finished process, output as text.

    Parameters
    ----------
    arguments : str
    cache : Path
        Triton's cache: an empty folder compiles everything.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(cache)
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def output(*arguments, cache):
    """Return the standard output of `run`, which must succeed."""
    process = run(*arguments, cache=cache)
    assert process.returncode == 0, process.stderr
    return process.stdout
