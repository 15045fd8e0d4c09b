"""What a run shows: the progress line, log.txt, curves, sample videos and trackers; the model card in the end."""

import logging
import time

from rcv.training.curves import write_curves
from rcv.training.model_card import write_model_card
from rcv.training.progress import ProgressLine
from rcv.training.run_log import RUN
from rcv.training.sample_metrics import SampleMetrics
from rcv.training.samples import Samples
from rcv.training.trackers import open_tracker

logger = logging.getLogger(__name__)


class Sight:
    """Told of every step, evaluation and checkpoint of a run, it shows them; nothing in it can end a run that trains.

    A tracker, a plot or a sample video that fails is warned of once and left out from there on.

    Parameters
    ----------
    trainer : Trainer
    pipeline : VideoPipeline
        What the trainer trains.
    done : int or None
        Steps of the checkpoint that the run goes on from; None for a new run.
    show_progress : bool
        Whether to draw the progress line.
    main : bool
        False in the processes that only help: they show nothing.
    interrupted : callable
        True once the run was asked to stop, so that no sample video keeps it waiting.
    """

    def __init__(self, trainer, pipeline, done, show_progress, main, interrupted):
        self.settings = trainer.settings
        self.line = ProgressLine(
            self.settings.steps, trainer.step, show_progress and main, trainer.accelerator.device
        )
        self.main, self.interrupted, self._failed = main, interrupted, set()
        self.samples = self.tracker = self.metrics = None
        self._draw_again = 0.0
        if not main:
            return
        self.tracker = self._attempt("tracker", open_tracker, self.settings, done)
        if self.settings.samples_every():
            self.samples = self._attempt("sample videos", Samples, trainer, pipeline)
        if self.samples:
            self._attempt("sample videos", self.samples.clear, done)
        if self.samples and self.settings.sample_clip:
            device = trainer.accelerator.device
            self.metrics = self._attempt("metrics of samples", SampleMetrics, self.settings, device)

    def __enter__(self):
        self.line.__enter__()
        return self

    def __exit__(self, *error):
        self.line.__exit__(*error)
        if self.main:  # whatever ended the run, a loss that became infinite too
            self._attempt("curves", write_curves, self.settings.output)
        if self.tracker:
            self._attempt("tracker", self.tracker.close)

    def say(self, message):
        """Print a message above the progress line, and keep it in log.txt."""
        RUN.info("%s", message)
        self.line.say(message)

    def trained(self, record):
        """Take the Record of a step."""
        line = self.line.update(record)
        if line is not None:
            RUN.info("%s", line)
        self._track(numbers_of(record), record.step)

    def evaluated(self, evaluation):
        """Take an evaluation: a named tuple of the step and losses by name."""
        losses = numbers_of(evaluation)
        named = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        RUN.info("step %s  %s", evaluation.step, named)
        self._track(losses, evaluation.step)

    def kept(self, step):
        """Take note that everything up to `step` is on the disk, and draw the curves: for a twentieth of the time."""
        RUN.info("checkpoint of step %s", step)
        started = time.perf_counter()
        if self.main and started >= self._draw_again:
            self._attempt("curves", write_curves, self.settings.output)
            self._draw_again = started + 20 * (time.perf_counter() - started)

    def sample(self, step, last=False):
        """Make the sample videos that are due after `step` steps, the `last` ones of a run or not."""
        if self.samples is None or self.interrupted():
            return
        if not self._attempt("sample videos", self.samples.due, step, last):
            return
        with self.line.busy("sampling"):
            videos = self._attempt("sample videos", self.samples.write, step, self.interrupted)
        if not videos:
            return
        RUN.info("samples in %s", videos[0].path.parent)
        if self.tracker:
            self._attempt("tracker", self.tracker.show, videos, step)
        means = self._attempt("metrics of samples", self.metrics.measure, videos) if self.metrics else None
        if means:
            RUN.info("samples  %s", ", ".join(f"{name} {value:.4g}" for name, value in means.items()))
            self._track({f"samples/{name}": value for name, value in means.items()}, step)

    def _track(self, values, step):
        if self.tracker:
            self._attempt("tracker", self.tracker.log, values, step)

    def _attempt(self, what, function, *args):
        """What `function(*args)` returns; None, after one warning, if it fails or `what` has failed before."""
        if what in self._failed:
            return None
        try:
            return function(*args)
        except Exception as error:
            self._failed.add(what)
            _warn(f"{what} left out from here on", error, "the run goes on")
            return None


def numbers_of(row):
    """Return {name: value} of a row of a log, without its step."""
    return {name: value for name, value in row._asdict().items() if name != "step"}


def show_finished(adapter):
    """Write the model card beside the adapter of a run that is done; a warning where that fails."""
    RUN.info("finished: %s", adapter)
    try:
        write_model_card(adapter.parent)
    except Exception as error:
        _warn("no model card", error, f"{adapter} is complete")


def _warn(what, error, remains):
    logger.warning("%s (%s: %s); %s", what, type(error).__name__, error, remains)
    RUN.info("%s", what, exc_info=error)
