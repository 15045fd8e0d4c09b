"""What was computed once, on disk: entries that a kill, a full disk or another process cannot spoil."""

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

from rcv.video import replacing

DISK_BYTES = 20 * 2**30
"""The least recently used entries are removed above this."""
DIGEST_BYTES = 32
logger = logging.getLogger(__name__)


class Cache:
    """Bytes under keys, each in a file of its own that is written whole or not at all.

    Every file begins with the SHA-256 of its key and content: a damaged one is noticed, removed and made again.
    Several processes may read and write the same folder. A folder that cannot be written (a full disk, no permission)
    is warned of once and left alone from then on; nothing that uses the cache ends for it.

    Parameters
    ----------
    folder : path or None
        Made on the first write. None: nothing is kept.
    """

    def __init__(self, folder):
        self.folder = None if folder is None else Path(folder).expanduser()
        self.writable = folder is not None

    def read(self, key):
        """Return the bytes written under the text `key`, or None."""
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, payload = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if digest != _digest(key, payload):
            logger.warning("%s: a damaged entry of the cache, made again", path)
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # the time of the last use is what `prune` goes by
            os.utime(path)
        return payload

    def write(self, key, payload):
        """Keep `payload` under the text `key`; a folder that cannot be written ends the cache, not the run."""
        if not self.writable:
            return
        try:
            with replacing(self._path(key)) as part:
                part.write_bytes(_digest(key, payload) + payload)
        except OSError as error:
            self.writable = False
            reason = os.strerror(error.errno) if error.errno else error
            logger.warning(
                "cache: nothing more is kept in %s (%s); choose another folder, or none", self.folder, reason
            )

    def prune(self, most=DISK_BYTES):
        """Remove the entries that were not used for longest until `most` bytes remain, and what killed writes left."""
        if self.folder is None:
            return
        found = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = Path(folder, name)
                with suppress(OSError):
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
        newest, total = max((time for time, _, _ in found), default=0), sum(size for _, size, _ in found)
        for time, size, path in sorted(found):
            left_over = path.name.startswith(".") and time < newest - 24 * 3600
            if total > most or left_over:
                total -= size
                with suppress(OSError):
                    path.unlink()

    def _path(self, key):
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / name[2:]


def cache_folder(setting):
    """Return the folder that the setting `cache` names, or None.

    "none": none. "auto": RCV_CACHE where it is set (itself a folder or "none"), else `rcv` in the user's folder of
    caches. Anything else is the folder.
    """
    if setting == "auto":
        setting = os.environ.get("RCV_CACHE") or os.path.join(
            os.environ.get("XDG_CACHE_HOME") or "~/.cache", "rcv"
        )
    return None if setting == "none" else Path(setting).expanduser()


def open_cache(setting):
    """Return the Cache of the setting `cache` ("auto", "none" or a folder), old entries removed if it is full."""
    cache = Cache(cache_folder(setting))
    cache.prune()
    return cache


def _digest(key, payload):
    return hashlib.sha256(key.encode() + b"\0" + payload).digest()
