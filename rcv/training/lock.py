"""One run a folder."""

import os
import socket
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rcv.training.disk import writing

LOCK, OWNER = ".lock", ".lock.owner"


class FolderBusyError(OSError):
    """Another process is writing into the folder."""


@contextmanager
def folder_lock(folder):
    """Hold `folder` for this process; FolderBusyError if another one holds it, OutputError if it cannot be made.

    The lock is the operating system's: it ends with the process that holds it, so a killed run leaves none. Who holds
    it stands in `FOLDER/.lock.owner`, for the error message alone.
    """
    folder = Path(folder)
    owner = folder / OWNER
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
            holder = None
        except Timeout:
            holder = _named_owner(folder) or "unknown"
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


def folder_holder(folder):
    """Return "PROCESS on HOST" of who holds `folder`, None if nobody does.

    The lock is only tried where a process is named that may be alive: a trial holds the lock for a moment, in which a
    run that starts would be refused.
    """
    folder = Path(folder)
    holder = _named_owner(folder)
    if holder is None:
        return None
    process, _, host = holder.partition(" on ")
    if host == socket.gethostname() and not _is_alive(process):
        return None
    try:
        with FileLock(folder / LOCK, timeout=0):
            return None
    except Timeout:
        return holder


def _named_owner(folder):
    try:
        return (folder / OWNER).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _is_alive(process):
    try:
        os.kill(int(process), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
