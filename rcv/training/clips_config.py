"""Settings of which clips a run trains on, and what it cuts out of them."""

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from rcv.config import Config, checked_name, nearest, parse_size
from rcv.data.buckets import Bucket, parse_buckets

CROPS = ("random", "center")


class ClipsConfig(Config):
    """Which clips, and what a training sample takes of them."""

    clips: Path | None = Field(
        None,
        description="Folder of clips (video files, GIFs, folders of frames), each with its caption in NAME.txt, or a "
        "JSONL or CSV file that lists clips and captions; clips of --theme are rendered if left out.",
    )
    theme: str = Field(
        "animal walking", description="Theme of the motion world that is rendered without --clips."
    )
    exclude_subject: list[str] = Field(
        [], description="Subjects of the theme that are not rendered: for generating them, unseen."
    )
    clip_count: int = Field(12, ge=1, description="Clips that are rendered without --clips.")
    frames: int = Field(16, ge=1, description="Frames of a training sample.")
    size: tuple[int, int] | None = Field(
        None,
        description="Height and width in pixels, such as 320x512 (or 256 for both); the base's own if left out.",
    )
    buckets: list[tuple[int, int, int]] = Field(
        [],
        description="Instead of frames and size: a list such as 16x256x256,24x320x512 (frames, height, width). A clip "
        "goes to the one nearest in aspect that it is long enough for; all samples of a step are of one bucket.",
    )
    stride: int = Field(1, ge=1, description="Every which frame of a clip is taken.")
    fps: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Frames a second at which clips are sampled, by their time stamps, before the stride; each clip's "
        "own if left out.",
    )
    crop: str = Field(
        "center",
        description="center or random: what is kept where the aspect differs. random shows more of a clip, and needs "
        "other latents for each of its places.",
    )
    flip: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability that a sample is mirrored. Not for captions that say left or right.",
    )
    caption_drop: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability that a sample trains on the empty caption, which guidance is measured from.",
    )
    skip_broken: bool = Field(
        False, description="Train on the sound clips and name the others, instead of refusing to start."
    )
    cache: str = Field(
        "auto",
        description="Folder where latents and text embeddings are kept for later runs, or none. auto: RCV_CACHE, else "
        "~/.cache/rcv.",
    )

    @field_validator("size", mode="before")
    @classmethod
    def _parse_size(cls, size):
        return parse_size(size)

    @field_validator("buckets", mode="before")
    @classmethod
    def _parse_buckets(cls, buckets):
        return parse_buckets(buckets)

    @field_validator("crop")
    @classmethod
    def _known_crop(cls, crop):
        return checked_name("crop", crop, CROPS)

    @field_validator("theme")
    @classmethod
    def _known_theme(cls, name):
        from rcv.world import THEMES

        return checked_name("theme", name, THEMES)

    @model_validator(mode="after")
    def _frames_and_size_are_the_buckets(self):
        """Frames become those of the longest bucket, the size that of the one with the most pixels."""
        if not self.buckets:
            return self
        shapes = self.shapes()
        said = {
            "frames": max(bucket.frames for bucket in shapes),
            "size": max(shapes, key=lambda bucket: bucket.volume).size,
        }
        for name, value in said.items():
            given = getattr(self, name)
            if name in self.model_fields_set and given is not None and given != value:
                raise ValueError(f"{name} is {given}, but buckets name their own, {value}; leave {name} out")
            setattr(self, name, value)
        return self

    @model_validator(mode="after")
    def _subjects_are_of_the_theme(self):
        from rcv.world import SUBJECTS

        if not self.exclude_subject:
            return self
        if self.clips is not None:
            raise ValueError(
                "exclude_subject chooses what is rendered of a theme; it cannot be given with clips"
            )
        known = SUBJECTS[self.theme]
        for subject in self.exclude_subject:
            if subject not in known:
                raise ValueError(
                    f"exclude_subject: {self.theme!r} has no subject {subject!r}{nearest(subject, known)} "
                    f"(it has: {', '.join(known)})"
                )
        if set(known) <= set(self.exclude_subject):
            raise ValueError(
                f"exclude_subject leaves no subject of {self.theme!r} (it has: {', '.join(known)})"
            )
        return self

    def shapes(self):
        """Return the Buckets of samples: `buckets`, or the one that `frames` and `size` name."""
        if self.buckets:
            return [Bucket(*bucket) for bucket in self.buckets]
        return [Bucket(self.frames, *self.size)]
