"""`rcv plan` as a user types it."""

import json

import pytest
from typer.testing import CliRunner

from rcv.cli import app


def run(*arguments):
    return CliRunner().invoke(app, ["plan", "embedded", "--frames", "3", *arguments])


def test_table_and_verdict(tmp_path):
    done = run("--size", "64", "--plot", str(tmp_path / "memory.png"))
    assert done.exit_code == 0
    for part in ("at the peak (computed)", "activations", "CUDA context", "needed", "It fits in v100"):
        assert part in done.output
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


def test_json():
    done = run("--size", "32x48", "--json", "--memory", "cpu", "--precision", "fp32")
    told = json.loads(done.output)
    assert (told["height"], told["width"], told["preset"], told["label"]) == (32, 48, "recurrent", "computed")
    assert told["needed_bytes"] == told["peak_bytes"] == sum(told["bytes_at_peak"].values())
    assert told["fits"] is True
    assert told["memory_bytes"] is None


def test_exit_status_says_that_it_does_not_fit():
    done = run("--size", "32", "--memory", "513MiB")
    assert done.exit_code == 1
    assert "It does not fit in 513MiB" in done.output
    assert "Nothing fits: one frame needs" in done.output


def test_most_frames():
    done = run("--size", "32", "--memory", "640MiB", "--most-frames", "--json")
    told = json.loads(done.output)
    assert told["fits"]
    assert told["frames"] > 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--memory", "v10"], "did you mean 'v100'"),
        (["--size", "12x"], "expected HEIGHTxWIDTH"),
        (["--gradient-checkpointing", "some"], "unknown checkpointing 'some'"),
        (["--memory", "cpu", "--most-frames"], "there is no most where memory has no limit"),
    ],
)
def test_bad_input(arguments, said):
    done = run("--size", "32", *arguments)
    assert done.exit_code == 1
    assert isinstance(done.exception, ValueError)
    assert said in str(done.exception)
