"""Which cells are computed, by which process and until when."""

import multiprocessing
import os
import sys
import time

from rcv.reproduce.arms import chosen_study
from rcv.reproduce.cells import study_cells
from rcv.training.lock import FolderBusyError

WAIT = 2.0
"""Seconds until a cell that another process is at is looked at again."""


def compute_all(config, say):
    """Compute the cells of a ReproduceConfig that are not there yet, in `config.jobs` processes.

    Processes share the work by locks on the cells' folders: a second call with the same output, on this machine, helps.
    A process that is killed loses its step of training or its sampling, no more.

    Parameters
    ----------
    config : ReproduceConfig
    say : callable
        Called with a line of text for every cell that is done.

    Returns
    -------
    bool
        Whether all cells are there; False where the budget ended first.
    """
    ends = None if config.budget is None else time.time() + 60 * config.budget
    if config.jobs == 1:
        _work(config, ends, None, say)
    else:
        context = multiprocessing.get_context("spawn")
        others = [
            context.Process(target=_work_alone, args=(config, ends, os.getpid())) for _ in range(config.jobs)
        ]
        for process in others:
            process.start()
        for process in others:
            process.join()
        if failed := [process.exitcode for process in others if process.exitcode]:
            raise ChildProcessError(
                f"{len(failed)} of {config.jobs} processes ended early (exit status {failed[0]}), for the reason that "
                "stands above; what was computed is kept"
            )
    return not missing_cells(config)


def all_cells(config):
    """Return the Cells of all chosen studies, each folder once, in the order of computation."""
    cells = {}
    for name in config.studies():
        for cell in study_cells(config, chosen_study(config, name)):
            cells.setdefault(cell.fingerprint, cell)
    return list(cells.values())


def missing_cells(config):
    """Return the Cells that have no result."""
    return [cell for cell in all_cells(config) if cell.result() is None]


def estimate(config):
    """Return the number of cells left, of trainings among them, and the hours that they will take, or None.

    Hours are by the mean of the cells and trainings that are there, shared by the jobs; None where there are none.
    """
    cells = all_cells(config)
    results = [(cell, cell.result()) for cell in cells]
    left = [cell for cell, result in results if result is None]
    done = [result for _, result in results if result is not None and "train_seconds" in result]
    trainings = {
        settings.output
        for cell in left
        if (settings := cell.training) and not (settings.output.parent / "training.json").exists()
    }
    if not done:
        return len(left), len(trainings), None
    training = sum(result["train_seconds"] for result in done) / len(done)
    rest = sum(result["sample_seconds"] + result["score_seconds"] for result in done) / len(done)
    return len(left), len(trainings), (training * len(trainings) + rest * len(left)) / 3600 / config.jobs


def _work_alone(config, ends, parent):
    try:
        _work(config, ends, parent, lambda line: print(line, flush=True))
    except (ValueError, OSError, MemoryError) as error:  # as the command shows them
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _work(config, ends, parent, say):
    """Compute cells until none is left, the time is over, or the process that began this one is gone."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums depend on the number of threads, and numbers must not depend on --jobs
    try:
        _compute_missing(config, ends, parent, say)
    finally:
        torch.set_num_threads(threads)


def _compute_missing(config, ends, parent, say):
    from rcv.evaluation.clip import load_clip
    from rcv.reproduce.compute import compute_cell

    clip = load_clip(config.clip)
    left = missing_cells(config)
    while left:
        busy = []
        for cell in left:
            if (ends is not None and time.time() >= ends) or parent not in (None, os.getppid()):
                return
            if cell.result() is not None:  # another process has been here
                continue
            try:
                result = compute_cell(cell, clip)
            except FolderBusyError:
                busy.append(cell)
                continue
            seconds = result["wall_seconds"]
            trouble = f": {result['error']}" if "error" in result else ""
            say(f"{cell.theme}, seed {cell.seed}: {cell.arm.name} ({seconds:.0f} s){trouble}")
        if busy:
            time.sleep(WAIT)
        left = [cell for cell in busy if cell.result() is None]
