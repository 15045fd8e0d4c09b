"""The progress line: loss, speed, memory and time left."""

import re

import torch

from rcv.training.progress import ProgressLine, memory_used
from tests.training.test_log import record


def test_without_a_terminal_lines_replace_the_bar(capfd):
    with ProgressLine(steps=40, done=0) as line:
        told = [line.update(record(step)) for step in range(1, 41)]
    lines = capfd.readouterr().err.splitlines()
    assert lines == [one for one in told if one is not None]
    assert len(lines) == 20
    pattern = r"step 40 of 40  loss 0\.\d{4}  \d+\.\d\d s a step  \d+\.\d\d GiB  0:00:00 left"
    assert re.fullmatch(pattern, lines[-1])


def test_what_is_done_instead_of_training_does_not_count(monkeypatch):
    from rcv.training import progress

    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with ProgressLine(steps=40, done=10, show=False) as line:
        now[0] += 2.0
        with line.busy("sampling"):
            now[0] += 100.0
        now[0] += 4.0
        assert "  3.00 s a step  " in line.update(record(12)) and "0:01:24 left" in line.update(record(12))


def test_memory_on_a_cpu_is_the_process_s_own():
    before = memory_used(torch.device("cpu"))
    held = torch.ones(2**25)
    assert memory_used(torch.device("cpu")) - before > 0.9 * held.nbytes
