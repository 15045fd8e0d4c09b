"""Settings of which clips a run trains on, and what it cuts out of them."""

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from rcv.config import Config, checked_name, nearest, parse_size

CROPS = ("random", "center")


class ClipsConfig(Config):
    """Which clips, and what a training sample takes of them."""

    clips: Path | None = Field(
        None,
        description="Folder of clips (video files, GIFs, folders of frames), each with its caption in NAME.txt; "
        "clips of --theme are rendered if left out.",
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
    stride: int = Field(1, ge=1, description="Every which frame of a clip is taken.")
    crop: str = Field("random", description="random or center: what is cut off where the aspect differs.")

    @field_validator("size", mode="before")
    @classmethod
    def _parse_size(cls, size):
        return parse_size(size)

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
