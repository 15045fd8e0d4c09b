"""Buckets: the shapes that samples are cut to, and which of them a clip goes to."""

import math
import re
from typing import NamedTuple

MOST_CUT = 8
"""How many times larger than the sample a resized picture may be: what remains of a strip says nothing."""
MOST_ENLARGED = 8
"""How many times a side may grow: a picture of one pixel is no clip."""


class Bucket(NamedTuple):
    """Frames, height and width of a sample."""

    frames: int
    height: int
    width: int

    def __str__(self):
        return f"{self.frames}x{self.height}x{self.width}"

    @property
    def size(self):
        """Height and width."""
        return (self.height, self.width)

    @property
    def volume(self):
        """Pixels of all frames."""
        return self.frames * self.height * self.width


def parse_buckets(buckets):
    """Return Buckets of "16x256x256,24x320x512", of a list of such texts, or of a list of triples.

    Raises
    ------
    ValueError
        Text that is no bucket, sides or frames below 1, the same bucket twice.
    """
    texts = [buckets] if isinstance(buckets, str) else list(buckets)
    found = []
    for item in texts:
        parts = [part for part in item.split(",") if part.strip()] if isinstance(item, str) else [item]
        found += [_bucket(part) for part in parts]
    for bucket in found:
        if found.count(bucket) > 1:
            raise ValueError(f"bucket {bucket} is given twice")
    return found


def _bucket(given):
    if isinstance(given, str):
        match = re.fullmatch(r"\s*(\d+)\s*[x×]\s*(\d+)\s*[x×]\s*(\d+)\s*", given)
        numbers = [int(number) for number in match.groups()] if match else []
    else:
        numbers = list(given) if isinstance(given, list | tuple) else []
    if len(numbers) != 3 or any(not isinstance(number, int) or number < 1 for number in numbers):
        raise ValueError(f"{given!r} is no bucket; expected FRAMESxHEIGHTxWIDTH, such as 16x256x256")
    return Bucket(*numbers)


def bucket_for(buckets, size, frames, stride):
    """Return the Bucket of a clip: of those that it is long enough for the nearest in aspect, or None.

    Of several that are equally near, the longest, then the largest.

    Parameters
    ----------
    buckets : list of Bucket
    size : (int, int)
        Height and width of the clip.
    frames : int
        Frames of the clip, of which a sample takes every `stride`-th.
    """
    long_enough = [bucket for bucket in buckets if (bucket.frames - 1) * stride < frames]
    if not long_enough:
        return None
    aspect = math.log(size[1] / size[0])

    def rank(bucket):
        return round(abs(math.log(bucket.width / bucket.height) - aspect), 6), -bucket.frames, -bucket.volume

    return min(long_enough, key=rank)


def check_fits(size, target):
    """Raise a ValueError if pictures of (height, width) `size` say nothing once they are brought to `target`."""
    from rcv.video.fitting import covering_size  # settings import this file, and shall not import PyAV

    height, width = covering_size(size, target)
    if height > MOST_ENLARGED * size[0] and width > MOST_ENLARGED * size[1]:
        raise ValueError(
            f"{size[0]}x{size[1]} pixels would be enlarged {height / size[0]:.0f} times to cover "
            f"{target[0]}x{target[1]}, more than {MOST_ENLARGED} times"
        )
    if height * width > MOST_CUT * target[0] * target[1]:
        share = target[0] * target[1] / (height * width)
        raise ValueError(
            f"of {size[0]}x{size[1]} pixels a sample of {target[0]}x{target[1]} would show {share:.1%}, less than an "
            f"{MOST_CUT}th; cut the clip to a less extreme aspect"
        )
