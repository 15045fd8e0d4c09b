"""What a run tells: losses.csv, eval_losses.csv, validation_losses.csv, and one line of progress."""

import csv
import math
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rcv.training.disk import writing

LINES_WITHOUT_TERMINAL = 20


class Record(NamedTuple):
    """One optimizer step, counted from 1."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float


class Evaluation(NamedTuple):
    """Mean loss of the fixed draws after `step` optimizer steps; 0 is before training."""

    step: int
    eval_loss: float


class Validation(NamedTuple):
    """Mean loss of fixed draws of clips that are not trained on, after `step` optimizer steps."""

    step: int
    validation_loss: float


class StepLog:
    """A CSV file of a run with a row of one kind for each of some steps; numbers read back exactly as written.

    Parameters
    ----------
    path : path
    kind : type
        Record, Evaluation or Validation.
    done : int or None
        Steps of the checkpoint that the run goes on from: rows behind it were lost with the steps, and are dropped.
        None for a new run.
    """

    def __init__(self, path, kind, done=None):
        self.path = Path(path)
        kept = [] if done is None else read_log(self.path, kind)
        self.records = [record for record in kept if record.step <= done]
        with writing(self.path):
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(kind._fields)
                writer.writerows(self.records)
            os.replace(temporary, self.path)
            self._file = open(self.path, "a", newline="", encoding="utf-8")  # noqa: SIM115 (closed by `close`)

    def append(self, record):
        """Add a row and hand it to the operating system, so that a killed run keeps it."""
        self.records.append(record)
        with writing(self.path):
            csv.writer(self._file).writerow(record)
            self._file.flush()

    def close(self):
        """Close the file."""
        with suppress(OSError):  # what a full disk kept from `append` was reported there
            self._file.close()


def read_log(path, kind):
    """Return the rows of a StepLog's file; one that a kill left half written is left out."""
    if not Path(path).exists():
        return []
    records = []
    with open(path, newline="", encoding="utf-8") as file:
        text = file.read()
    whole = text[: text.rfind("\n") + 1]
    for row in list(csv.reader(whole.splitlines()))[1:]:
        try:
            records.append(kind(int(row[0]), *(float(value) for value in row[1:])))
        except (ValueError, IndexError, TypeError):
            continue
    return records


class ProgressLine:
    """A bar with loss, speed and time left on a terminal; a line now and then where the output is not one."""

    def __init__(self, steps, done, show=True):
        self.console = Console(stderr=True, quiet=not show)
        self.steps, self.every = steps, max(1, steps // LINES_WITHOUT_TERMINAL)
        self.started, self.done_before, self.average = time.perf_counter(), done, None
        self.bar = Progress(
            TextColumn("finetuning"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (show and self.console.is_terminal),
        )
        self.task = self.bar.add_task("finetuning", total=steps, completed=done, status="")

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def update(self, record):
        """Show one more step; the loss shown is a moving average, since single steps differ by their timestep."""
        old = self.average
        self.average = (
            record.loss if old is None or not math.isfinite(old) else 0.95 * old + 0.05 * record.loss
        )
        seconds = (time.perf_counter() - self.started) / max(1, record.step - self.done_before)
        status = f"loss {self.average:.4f}  {seconds:.2f} s a step"
        self.bar.update(self.task, completed=record.step, status=status)
        if not self.console.is_terminal and (record.step % self.every == 0 or record.step == self.steps):
            self.console.print(f"step {record.step} of {self.steps}  {status}", highlight=False)
            sys.stderr.flush()

    def say(self, message):
        """Print a message above the bar."""
        self.console.print(message, highlight=False, soft_wrap=True)
