"""log.txt of a run: every message, warning and error, with the time."""

import logging
import warnings
from contextlib import contextmanager

from rcv.training.disk import writing

RUN = logging.getLogger("rcv.run")
"""What a run says of its progress. It goes into the file of `run_log` alone; the terminal has the progress line."""

OWN_HANDLERS = ("diffusers", "transformers")
"""Libraries whose loggers hand nothing on to the root, unless they are told to (transformers is by the variable CI)."""


class _File(logging.FileHandler):
    """A file that takes a record once, though it comes through a library's logger and the root.

    A log that cannot be written ends no run: a full disk is reported where something is lost by it.
    """

    last = None

    def emit(self, record):
        if record is not self.last:
            self.last = record
            super().emit(record)

    def handleError(self, record):
        pass


@contextmanager
def run_log(path):
    """Append what is said inside the block to the file `path`; an error that leaves the block is written down as well.

    OutputError if the file cannot be opened.
    """
    with writing(path):
        file = _File(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    file.addFilter(lambda record: record.name == RUN.name or record.levelno >= logging.WARNING)
    RUN.setLevel(logging.INFO)
    RUN.propagate = False
    root = logging.getLogger()
    added = [(logger, file) for logger in (root, RUN, *map(logging.getLogger, OWN_HANDLERS))]
    if not root.handlers:  # Python then shows warnings on standard error, but not beside a handler
        added.append((root, logging.lastResort))
    show_warning = warnings.showwarning

    def shown_and_kept(message, category, filename, lineno, *stream):
        RUN.warning("%s: %s (%s:%s)", category.__name__, message, filename, lineno)
        show_warning(message, category, filename, lineno, *stream)

    for logger, handler in added:
        logger.addHandler(handler)
    warnings.showwarning = shown_and_kept
    try:
        yield
    except KeyboardInterrupt as stop:
        RUN.warning("%s", stop or "interrupted")
        raise
    except BaseException as error:
        RUN.error("%s: %s", type(error).__name__, error, exc_info=error)
        raise
    finally:
        if warnings.showwarning is shown_and_kept:
            warnings.showwarning = show_warning
        for logger, handler in added:
            logger.removeHandler(handler)
        file.close()
