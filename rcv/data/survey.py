"""What training would see of a list of clips: each with its length, size and bucket, or with its problems."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rcv.data.buckets import Bucket, bucket_for, check_fits
from rcv.data.entries import Entry
from rcv.data.facts import Facts, clip_facts
from rcv.data.sources import read_entries
from rcv.video.fitting import covering_size


@dataclass(frozen=True)
class Clip:
    """A clip that can be trained on.

    `indices`: the frames of the file that count, in order: those of its part of the file, at the rate asked for.
    `size`: height and width after resizing, which cover the bucket's. `digest` tells apart what the list says of it.
    """

    name: str
    path: Path
    caption: str
    indices: tuple[int, ...]
    bucket: Bucket
    size: tuple[int, int]
    content: str
    repeats: int
    digest: str

    @property
    def frames(self):
        """How many frames count."""
        return len(self.indices)


@dataclass(frozen=True)
class Surveyed:
    """An Entry, with the Facts of its file (None if it cannot be read) and its Clip (None if there are problems)."""

    entry: Entry
    facts: Facts | None
    clip: Clip | None
    problems: tuple[str, ...]

    def as_dict(self):
        """Return what `rcv clips` tells of it, as JSON values; what is not known is None."""
        facts, clip = self.facts, self.clip
        return {
            "name": self.entry.name,
            "path": None if self.entry.path is None else str(self.entry.path),
            "caption": self.entry.caption,
            "frames": None if facts is None else len(facts.times),
            "fps": None if facts is None else round(facts.fps, 3),
            "size": None if facts is None else list(facts.size),
            "used_frames": None if clip is None else clip.frames,
            "bucket": None if clip is None else str(clip.bucket),
            "repeats": self.entry.repeats,
            "problems": list(self.problems),
        }


def survey(source, buckets, stride, fps, cache):
    """Return the Surveyed of all clips of a folder or table, ordered by name, each decoded to its end or known already.

    Parameters
    ----------
    source : path
        As `read_entries`.
    buckets : list of Bucket
        A clip goes to the one nearest in aspect that it is long enough for.
    stride : int
        A sample takes every `stride`-th of the frames that count.
    fps : float or None
        Frames a second that count; the clip's own if None.
    cache : Cache
        Where what was found out about a file is kept.

    Raises
    ------
    ClipsError
        There is no list of clips. What is wrong with one clip stands in its Surveyed.
    """
    entries = sorted(read_entries(Path(source)), key=lambda entry: entry.name)
    return [_surveyed(entry, buckets, stride, fps, cache) for entry in entries]


def _surveyed(entry, buckets, stride, fps, cache):
    problems, facts, clip = list(entry.problems), None, None
    if entry.path is not None:
        try:
            facts = clip_facts(entry.path, cache)
            clip = _clip(entry, facts, buckets, stride, fps)
        except Exception as error:  # whatever a decoder throws at a hostile file is that file's problem
            reason = str(error).removeprefix(f"{entry.path}: ") or type(error).__name__
            problems.append(f"{entry.name}: {reason}")
    return Surveyed(entry, facts, None if problems else clip, tuple(problems))


def _clip(entry, facts, buckets, stride, fps):
    indices = facts.frames_between(entry.start, entry.end)
    if len(indices) and fps is not None:
        indices = facts.frames_at(fps, indices)
    bucket = bucket_for(buckets, facts.size, len(indices), stride)
    if bucket is None:
        raise ValueError(_too_short(entry, len(indices), buckets, stride, fps))
    check_fits(facts.size, bucket.size)
    said = (facts.content, entry.caption, entry.start, entry.end, entry.repeats)
    return Clip(
        name=entry.name,
        path=entry.path,
        caption=entry.caption,
        indices=tuple(indices.tolist()),
        bucket=bucket,
        size=covering_size(facts.size, bucket.size),
        content=facts.content,
        repeats=entry.repeats,
        digest=hashlib.sha256(repr(said).encode()).hexdigest()[:16],
    )


def _too_short(entry, count, buckets, stride, fps):
    frames = min(bucket.frames for bucket in buckets)
    span = (frames - 1) * stride + 1
    part = "" if entry.end is None and not entry.start else " in the part asked for"
    rate = f" at {fps:g} frames a second" if fps is not None else ""
    strided = f" with stride {stride}" if stride > 1 else ""
    sample = "a sample" if len(buckets) == 1 else "a sample of the shortest bucket, one"
    return f"{count} frames{part}{rate}, fewer than the {span} that {sample} of {frames}{strided} spans"
