"""The report that a user sends back: written whatever happens, private, and read again."""

import getpass
import socket
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from rcv.benchmarks import gpu_suite, report
from rcv.benchmarks.results import Results, Row
from rcv.cli import app

V100 = "Tesla V100-SXM2-16GB"


def _row(candidate, direction="forward", status="timed", median=1e-3, **values):
    case = {"operation": "temporal_attention", "frames": 3, "tokens": 5, "heads": 2, "head_dim": 8}
    times = {"median_s": median, "q1_s": median, "q3_s": median} if status == "timed" else {}
    known = {"dtype": "float16", "candidate": candidate, "direction": direction, "status": status}
    return Row(**case, **known, **times, **values)


ROWS = [
    _row("rcv:cuda", "both", "passed", error_ratio=0.5),
    _row("rcv:torch", "both", "failed", reason="gradient 1: error 2, allowed 1", error_ratio=2.0),
    _row("rcv:cuda"),
    _row("sdpa:efficient", median=3e-3),
    _row("sdpa:math", median=9e-3),
    _row("reference", median=8e-3),
    _row("xformers", "both", "refused", reason="the package xformers is not installed"),
]


@pytest.fixture
def measured(monkeypatch):
    """Let the suite's process leave ROWS behind, of a V100 in name."""

    def run(arguments):
        device = {"name": V100, "capability": "7.0", "source": "data sheet", "rates": {}}
        results = Results(f"measured on {V100}", device, {}, None, list(ROWS))
        results.save(arguments[arguments.index("--out") + 1])
        return ""

    monkeypatch.setattr(report, "_run", run)


# The suite, of which the first two pieces of work are enough here.
TWO_CHECKS = """
import sys
from rcv.benchmarks import gpu_suite

everything = gpu_suite.items_of
gpu_suite.items_of = lambda *arguments: everything(*arguments)[:2]
sys.exit(gpu_suite.main())
"""


def test_a_run_on_the_cpu_says_so_and_is_read_again(monkeypatch, tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO_CHECKS)
    monkeypatch.setattr(gpu_suite, "__file__", str(script))
    path = tmp_path / "sent" / "report.md"
    results = report.write_report(path, "cpu", "quick")
    text = path.read_text()
    assert "**This is a report of a CPU" in text
    assert [(row.candidate, row.status) for row in results.rows] == [("rcv:torch", "passed")] * 2
    assert report.load_report(path) == results
    for private in (str(Path.home()), socket.gethostname(), str(tmp_path)):
        assert private not in text


def test_the_summary_has_failures_and_rivals(measured, tmp_path):
    report.write_report(tmp_path / "report.md", "cpu")
    text = (tmp_path / "report.md").read_text()
    assert "| temporal_attention | cuda | float16 | 1 | 0 | 0.50 |" in text
    assert "| temporal_attention | torch | float16 | 1 | 1 | 2.00 |" in text
    assert (
        "* **temporal_attention B1 F3 N5 H2 D8 float16, rcv:torch: gradient 1: error 2, allowed 1**" in text
    )
    assert "| rcv:cuda | 1 | 3 (3.00x) |  | 8 (8.00x) |" in text
    assert "* xformers: the package xformers is not installed" in text
    assert "report of a CPU" not in text


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL ended the process"),
        ("raise RuntimeError('no kernel image')", "broke off: RuntimeError: no kernel image"),
    ],
)
def test_a_process_that_dies_leaves_a_report(monkeypatch, tmp_path, program, said):
    script = tmp_path / "dies.py"
    script.write_text(program)
    monkeypatch.setattr(gpu_suite, "__file__", str(script))
    results = report.write_report(tmp_path / "report.md", "cpu")
    (note,) = results.notes
    text = (tmp_path / "report.md").read_text()
    assert said in note and note in text
    assert "Nothing was checked." in text and "Nothing was timed." in text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("no file /home/ann/venv/lib/x.so: gone", "no file x.so: gone"),
        ("at C:\\Users\\ann\\x.py", "at x.py"),
        ("3 FLOP/s and 4/5 of it", "3 FLOP/s and 4/5 of it"),
        ("ann@laptop-7", "...@..."),
        ("anniversary", "anniversary"),
    ],
)
def test_what_is_private_is_taken_out(monkeypatch, text, left):
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop-7")
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    assert report.without_private({"a": [text]}) == {"a": [left]}


def test_the_command_fails_where_something_is_wrong(measured, tmp_path):
    path = tmp_path / "report.md"
    outcome = CliRunner().invoke(app, ["bench", "--report", str(path), "--device", "cpu"])
    assert path.exists()
    assert "1 results of rcv's own are wrong here" in str(outcome.exception)


def test_the_command_wants_markdown():
    outcome = CliRunner().invoke(app, ["bench", "--report", "report.zip"])
    assert "its name ends in .md" in str(outcome.exception)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="finds no CUDA device"):
        report.write_report(tmp_path / "report.md", "cuda")
    assert not (tmp_path / "report.md").exists()


def test_reports_are_compared(measured, tmp_path):
    for name in ("old.md", "new.md"):
        report.write_report(tmp_path / name, "cpu")
    outcome = CliRunner().invoke(
        app, ["bench", "compare", str(tmp_path / "old.md"), str(tmp_path / "new.md")]
    )
    assert outcome.exit_code == 0 and "1.00" in outcome.stdout


def test_a_file_that_is_no_report_is_named(tmp_path):
    (tmp_path / "notes.md").write_text("# nothing")
    with pytest.raises(ValueError, match=r"notes\.md is no report"):
        report.load_report(tmp_path / "notes.md")
