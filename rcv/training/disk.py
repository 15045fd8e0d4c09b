"""Errors of writing that say what to do."""

import errno
import os
from contextlib import contextmanager

ADVICE = {
    errno.ENOSPC: "free some space, or choose an output on another disk",
    errno.EDQUOT: "free some space, or choose an output on another disk",
    errno.EROFS: "the disk is read-only; choose another output",
    errno.EACCES: "mend the permissions, or choose another output",
    errno.EPERM: "mend the permissions, or choose another output",
    errno.ENOTDIR: "a part of the path is a file; choose another output",
    errno.EEXIST: "a file of this name is in the way; choose another output",
}


class OutputError(OSError):
    """The output cannot be written; says why and what to do."""


@contextmanager
def writing(path):
    """Turn what the system says when `path` cannot be written into an OutputError that names it and the way out."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno, "choose another output")
        reason = os.strerror(error.errno) if error.errno else error
        raise OutputError(f"{path}: cannot be written ({reason}); {advice}") from error
