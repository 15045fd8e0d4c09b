"""Settings of `rcv reproduce`. Importing this module brings no PyTorch, so that `rcv --help` is quick."""

from pathlib import Path

from pydantic import Field, field_validator

from rcv.config import Config, checked_name

STUDIES = ("table1", "choices", "steps", "noise", "unseen", "long", "memory")
STAGES = ("choices", "table1", "memory", "unseen", "noise", "long", "steps")
"""The order of `all`: what decides first, what costs most last."""


class ReproduceConfig(Config):
    """Settings of `rcv reproduce`; those of a study are the same for all of its arms."""

    study: str = Field(
        "table1",
        description=f"One of {', '.join(STUDIES)}; or all: these in turn ({', '.join(STAGES)}).",
    )
    output: Path = Field(
        Path("runs/table1"),
        description="Folder for cells and report; what is there already is not computed again.",
    )
    base: str | None = Field(
        None, description="Stable Diffusion 1.x or 2.x folder; the embedded model if left out."
    )
    clip: Path | None = Field(
        None, description="CLIP folder for the metrics; the motion world's own if left out."
    )
    themes: list[str] = Field([], description="Themes of the motion world; the study's own if left out.")
    seeds: list[int] = Field(
        [], description="Seeds of clips, training and noise; the study's own if left out."
    )
    arms: list[str] = Field([], description="Arms of the study; all if left out.")
    frames: int = Field(8, ge=4, description="Frames of clips and videos, at 8 a second.")
    clip_count: int = Field(8, ge=2, le=9, description="Clips that an arm is trained on.")
    steps: int = Field(300, ge=1, description="Optimizer steps: the paper's baseline takes 300.")
    learning_rate: float | None = Field(
        None, gt=0, description="Highest learning rate of all arms; what finetuning takes if left out."
    )
    prompts: int = Field(3, ge=1, description="Videos that are generated and scored for each theme and seed.")
    sampling_steps: int = Field(16, ge=1, description="DDIM steps, of inversion too.")
    guidance_scale: float = Field(
        3.0, ge=0, description="Classifier-free guidance; the embedded model wants 3."
    )
    jobs: int = Field(1, ge=1, description="Processes that compute cells side by side, each in one thread.")
    budget: float | None = Field(
        None,
        gt=0,
        description="Minutes after which no further cell is begun; the same command goes on from there.",
    )
    estimate: bool = Field(
        False, description="Compute nothing: count what is left and say how long it will take."
    )

    @field_validator("study")
    @classmethod
    def _known_study(cls, name):
        return checked_name("study", name, (*STUDIES, "all"))

    @field_validator("themes")
    @classmethod
    def _known_themes(cls, names):
        from rcv.world import THEMES

        return [checked_name("theme", name, THEMES) for name in names]

    @field_validator("seeds")
    @classmethod
    def _seeds_count_from_zero(cls, seeds):
        if any(seed < 0 for seed in seeds):
            raise ValueError(f"seeds are {seeds}, expected 0 or more")
        return seeds

    def studies(self):
        """Return the names of the studies that `study` stands for, in order."""
        return STAGES if self.study == "all" else (self.study,)
