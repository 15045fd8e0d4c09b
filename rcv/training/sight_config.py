"""Settings of what a run shows while it trains."""

from pydantic import Field, field_validator

from rcv.config import Config, checked_name

TRACKERS = ("none", "tensorboard", "wandb")


class SightConfig(Config):
    """Which samples a run makes of itself, and where its numbers go besides its own folder."""

    sample_every: int | None = Field(
        None,
        ge=0,
        description="Steps between sample videos (samples/step-000100/*.gif), the first ones before training. "
        "checkpoint_every if left out and there are prompts, else 0: none.",
    )
    prompts: list[str] = Field(
        [],
        description="What the sample videos show, with the same seeds over the run; the first four captions of the "
        "clips if left out.",
    )
    sample_steps: int = Field(25, ge=1, description="Denoising steps of a sample video.")
    sample_clip: str | None = Field(
        None,
        description="Folder of a CLIP model that sample videos are measured with (metrics.csv beside them), or "
        "embedded, the motion world's own. Not measured if left out.",
    )
    tracker: str = Field(
        "none", description="tensorboard or wandb: a program that gets all numbers and sample videos as well."
    )

    @field_validator("tracker")
    @classmethod
    def _known_tracker(cls, tracker):
        return checked_name("tracker", tracker, TRACKERS)

    @field_validator("prompts")
    @classmethod
    def _no_empty_prompt(cls, prompts):
        if not all(prompt.strip() for prompt in prompts):
            raise ValueError("one of the prompts is empty; expected what a video shows")
        return prompts

    def samples_every(self):
        """Return the steps between sample videos, 0 for none."""
        if self.sample_every is None:
            return self.checkpoint_every if self.prompts else 0
        return self.sample_every
