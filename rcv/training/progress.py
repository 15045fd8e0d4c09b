"""One line of progress: loss, speed, memory, time left."""

import math
import sys
import time
from contextlib import contextmanager
from datetime import timedelta

import psutil
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

LINES_WITHOUT_TERMINAL = 20


def memory_used(device):
    """Return the bytes of memory that count on a device: PyTorch's most on a GPU, else the process's present ones."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return psutil.Process().memory_info().rss


class ProgressLine:
    """A bar on a terminal; a line now and then where the output is not one.

    Parameters
    ----------
    steps, done : int
        All steps of the run, and those before this process.
    show : bool
        False: nothing is shown.
    device : torch.device
        Whose memory counts.
    """

    def __init__(self, steps, done, show=True, device=torch.device("cpu")):  # noqa: B008 (immutable)
        self.console = Console(stderr=True, quiet=not show)
        self.steps, self.every, self.device = steps, max(1, steps // LINES_WITHOUT_TERMINAL), device
        self.done_before, self.started, self.loss, self.seconds = done, None, None, None
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True)),
            expand=True,  # the bar takes what width the text leaves
            console=self.console,
            disable=not (show and self.console.is_terminal),
        )
        self.task = self.bar.add_task("finetuning", total=steps, completed=done, status="")

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    @contextmanager
    def busy(self, doing):
        """Say what is done instead of training."""
        self.bar.update(self.task, description=doing)
        try:
            yield
        finally:
            self.bar.update(self.task, description="finetuning")

    def update(self, record):
        """Show one more step; returns the line as text where one is due, else None.

        Loss and seconds of a step are moving averages: single steps differ by their timestep. The time left counts all
        that has passed since the first step, evaluations and samples too.
        """
        now = time.perf_counter()
        if self.started is None:
            self.started = now - record.seconds
        self.loss = _averaged(self.loss, record.loss)
        self.seconds = _averaged(self.seconds, record.seconds)
        passed = (now - self.started) / max(1, record.step - self.done_before)
        left = timedelta(seconds=round(passed * (self.steps - record.step)))
        memory = memory_used(self.device) / 2**30
        status = f"loss {self.loss:.4f}  {self.seconds:.2f} s a step  {memory:.2f} GiB  {left} left"
        self.bar.update(self.task, completed=record.step, status=status)
        if record.step % self.every and record.step != self.steps:
            return None
        line = f"step {record.step} of {self.steps}  {status}"
        if not self.console.is_terminal:
            self.console.print(line, highlight=False, soft_wrap=True)
            sys.stderr.flush()
        return line

    def say(self, message):
        """Print a message above the bar."""
        self.console.print(message, highlight=False, soft_wrap=True, markup=False)


def _averaged(old, new):
    """The moving average of `old`, None at the start, and `new`."""
    return new if old is None or not math.isfinite(old) else 0.95 * old + 0.05 * new
