"""Numbers that a run leaves: losses.csv, eval_losses.csv, validation_losses.csv."""

import csv
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rcv.training.disk import writing


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
