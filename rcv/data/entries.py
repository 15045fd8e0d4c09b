"""What a folder or a table says of a clip, before the clip is opened."""

from dataclasses import dataclass
from pathlib import Path


class ClipsError(ValueError):
    """Clips that cannot be trained on. `problems` holds one sentence a problem."""

    def __init__(self, source, problems):
        self.problems = tuple(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
        super().__init__(f"clips: {count} in {source}; nothing was written:\n{lines}")


@dataclass(frozen=True)
class Entry:
    """One clip as it is listed.

    `start` and `end` in seconds name the part of the video that is the clip; it is drawn `repeats` times an epoch.
    `path` and `caption` are None where the list does not say them; `problems` then says so.
    """

    name: str
    path: Path | None
    caption: str | None
    start: float = 0.0
    end: float | None = None
    repeats: int = 1
    problems: tuple[str, ...] = ()
