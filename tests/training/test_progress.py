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


def test_the_time_left_counts_what_is_done_between_steps(monkeypatch):
    from rcv.training import progress

    now = [1000.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with ProgressLine(steps=40, done=10, show=False) as line:
        now[0] += 60.0  # an evaluation before the first step
        now[0] += 0.25
        line.update(record(11))
        with line.busy("sampling"):
            now[0] += 10.0
        now[0] += 0.25
        told = line.update(record(12))
    assert "  0.25 s a step  " in told
    assert "0:02:27 left" in told  # 28 steps at 5.25 s


def test_memory_on_a_cpu_is_the_process_s_own():
    before = memory_used(torch.device("cpu"))
    held = torch.ones(2**25)
    assert memory_used(torch.device("cpu")) - before > 0.9 * held.nbytes
