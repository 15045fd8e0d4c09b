"""One run a folder."""

import os
import socket
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rcv.training.disk import writing


class FolderBusyError(OSError):
    """Another process is writing into the folder."""


@contextmanager
def folder_lock(folder):
    """Hold `folder` for this process; FolderBusyError if another one holds it, OutputError if it cannot be made.

    The lock is the operating system's: it ends with the process that holds it, so a killed run leaves none. Who holds
    it stands in `FOLDER/.lock.owner`, for the error message alone.
    """
    folder = Path(folder)
    owner = folder / ".lock.owner"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
            holder = None
        except Timeout:
            holder = owner.read_text(encoding="utf-8").strip() if owner.exists() else "unknown"
    if holder is not None:
        raise FolderBusyError(
            f"{folder}: another run is writing into this folder (process {holder}); wait for it, stop it, or choose "
            "another output folder"
        )
    try:
        with writing(folder):
            owner.write_text(f"{os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
