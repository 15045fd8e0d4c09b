"""Files and folders that appear whole or not at all: made beside their place, which they take at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Path of a temporary file beside `path` that takes its place when the block ends without an error."""
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=f".part{path.suffix}", dir=path.parent
        )
        os.close(handle)
        part = Path(name)
        yield part
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except OSError as error:
        raise _named(error, path) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Path of an empty folder beside `path` that takes its place when the block ends without an error.

    What stood there is removed when the new one has its place, and goes back where that fails.
    """
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        new, old = aside / "new", aside / "old"
        new.mkdir()
        yield new
        try:
            if path.is_dir():
                os.replace(path, old)
            os.replace(new, path)
        except OSError:
            if old.is_dir() and not path.exists():
                old.rename(path)
            raise
    except OSError as error:
        raise _named(error, path) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _named(error: OSError, path: Path) -> OSError:
    """The error, of the same type, with the path that was meant instead of the temporary one."""
    return type(error)(error.errno, f"cannot write {path}: {error.strerror or error}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
