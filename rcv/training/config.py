"""Settings of a finetuning run."""

import math
from pathlib import Path
from typing import ClassVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rcv.config import DTYPES, checked_name
from rcv.training.clips_config import ClipsConfig
from rcv.training.sight_config import SightConfig

PRECISIONS = ("auto", *DTYPES)
SCHEDULES = ("linear", "cosine", "constant")
OPTIMIZERS = ("adamw", "adamw8bit")
NOISES = ("independent", "shared", "autoregressive")
NOISE_FORMS = ("variance_preserving", "paper")
NAMED = {
    "precision": PRECISIONS,
    "schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
    "noise": NOISES,
    "noise_form": NOISE_FORMS,
}

LEARNING_RATE = 3e-5
EMBEDDED_LEARNING_RATE = 3e-3
"""The embedded model is a hundredth of Stable Diffusion's size and bears larger steps."""


class FinetuneConfig(SightConfig, ClipsConfig):
    """Settings of `rcv finetune`. Names left out take the defaults; `finetune` writes them resolved.

    Shipped are settings for cards with 8 to 24 GB, of Stable Diffusion 1.x.
    """

    shipped: ClassVar[Path] = Path(__file__).parent / "cards"

    base: str | None = Field(
        None, description="Stable Diffusion 1.x or 2.x folder; the embedded model if left out."
    )
    preset: str = Field(
        "recurrent",
        description="What a frame attends to and what is trained; fields may be changed, as in "
        "'recurrent(cell=rglru, drive=feedback)'.",
    )
    output: Path = Field(
        Path("runs/finetune"), description="Folder for the adapter, the log and the checkpoints."
    )
    window: int | None = Field(
        None,
        ge=1,
        description="Frames that are backpropagated through at once, which memory goes by: a sample is run window by "
        "window, each from the state that the one before left, cut off from its gradient. All frames if left out.",
    )
    random_window: bool = Field(
        False,
        description="Train each step on one window at a random place of the sample, its memory empty, instead of on "
        "all windows in order.",
    )
    steps: int = Field(300, ge=1, description="Optimizer steps.")
    batch_size: int = Field(1, ge=1, description="Samples at once on each device.")
    gradient_accumulation: int = Field(
        1, ge=1, description="Batches whose gradients make one optimizer step."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        description=f"Highest learning rate; {LEARNING_RATE} if left out, {EMBEDDED_LEARNING_RATE} "
        "for the embedded model.",
    )
    schedule: str = Field("linear", description="linear, cosine or constant learning rate after the warm-up.")
    warmup_steps: int | None = Field(
        None, ge=0, description="Steps of linear warm-up; a tenth of --steps if left out."
    )
    optimizer: str = Field(
        "adamw",
        description="adamw, or adamw8bit: AdamW with moments of 8 bits, where bitsandbytes is installed.",
    )
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay of the mean gradient.")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's decay of the mean squared gradient.")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW's epsilon.")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients with a larger norm are scaled down to it.")
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of a running mean of the trained weights, such as 0.999, which evaluations measure and the "
        "adapter takes. 0: none.",
    )
    debiased_loss: float | None = Field(
        None,
        ge=0,
        description="Weight of MotionDirector's debiased loss, which counts what differs between frames, so that "
        "motion is learned before appearance: 1 is its authors'. 0: none. The preset's own if left out.",
    )
    precision: str = Field(
        "auto",
        description="fp32, fp16 or bf16 for the frozen weights and the computation; trained weights stay in "
        "fp32. auto: fp32 on a CPU; on a GPU bf16 where it computes in it natively, else fp16.",
    )
    gradient_checkpointing: str = Field(
        "auto",
        description="What is recomputed instead of kept: none, selective (a little slower), full (a third slower), "
        "offload (full, and what is left to keep waits in main memory). auto: the fastest that fits in --memory.",
    )
    memory: str = Field(
        "auto",
        description="Memory that the run is planned for before it starts: a card (v100, t4, ...) or an amount such as "
        "12GiB. auto: the GPU's own, and no plan on a CPU. none: no plan.",
    )
    noise: str = Field("independent", description="independent, shared or autoregressive noise over frames.")
    noise_alpha: float = Field(
        0.5, ge=0, le=1, description="How much the frames' noise has in common (0 to 1)."
    )
    noise_form: str = Field(
        "variance_preserving", description="variance_preserving, or paper for its formulas."
    )
    seed: int = Field(0, ge=0, description="With the clips and the settings it determines the run.")
    eval_draws: int = Field(
        8,
        ge=0,
        description="Fixed draws (clip, noise, timestep) whose mean loss is measured before training, at checkpoints "
        "and at the end: eval_losses.csv. As many of the validation clips: validation_losses.csv. 0: none.",
    )
    validation_clips: Path | None = Field(
        None, description="Folder of clips that are not trained on, whose loss is measured at evaluations."
    )
    hold_out: int = Field(
        0, ge=0, description="Clips, chosen by the seed, that are not trained on but validated on."
    )
    patience: int = Field(
        0,
        ge=0,
        description="Evaluations in a row without a lower validation loss that end the run; the adapter then holds the "
        "weights of the lowest. 0: all steps, and the last weights.",
    )
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(2, ge=1, description="Checkpoints kept; older ones are removed.")
    resume: str = Field(
        "auto",
        description="auto: go on with the same settings from the newest checkpoint in --output; latest: the "
        "same, with settings that may differ; never: start over; or the path of a checkpoint.",
    )
    workers: int = Field(
        1, ge=0, description="Threads that decode the next samples; the draws don't depend on it."
    )

    @field_validator(*NAMED)
    @classmethod
    def _known_name(cls, name, info: ValidationInfo):
        return checked_name(info.field_name, name, NAMED[info.field_name])

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _was_a_switch(cls, mode):
        return {True: "full", False: "none"}.get(mode, mode) if isinstance(mode, bool) else mode

    @field_validator("gradient_checkpointing")
    @classmethod
    def _known_mode(cls, mode):
        from rcv.models.recompute import MODES

        return checked_name("gradient_checkpointing", mode, ("auto", *MODES))

    @field_validator("memory")
    @classmethod
    def _known_memory(cls, memory):
        from rcv.planning.budget import budget

        if memory not in ("auto", "none"):
            budget(memory)
        return memory

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, name):
        from rcv.models import get_preset

        get_preset(name)
        return name

    @model_validator(mode="after")
    def _warmup_fits(self):
        if self.warmup_steps is not None and self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}, more than all {self.steps} steps")
        return self

    @model_validator(mode="after")
    def _validation_is_complete(self):
        validates = self.validation_clips is not None or self.hold_out > 0
        if self.validation_clips is not None and self.hold_out:
            raise ValueError("validation_clips and hold_out both name clips to validate on; give one of them")
        if self.clips is None and self.hold_out >= self.clip_count:
            raise ValueError(
                f"hold_out is {self.hold_out} of {self.clip_count} rendered clips, which leaves none to train on"
            )
        if self.patience and not validates:
            raise ValueError("patience needs a validation loss: hold_out=N clips, or validation_clips=FOLDER")
        if validates and not self.eval_draws:
            raise ValueError("eval_draws is 0, so that clips to validate on would never be measured")
        return self

    @model_validator(mode="after")
    def _window_fits(self):
        from rcv.models import get_preset
        from rcv.models.state import check_carries

        if self.window is None:
            if self.random_window:
                raise ValueError("random_window needs a window: the number of frames to train on at once")
            return self
        if self.window > self.frames:
            raise ValueError(
                f"window is {self.window}, more than the {self.frames} frames of a sample; leave window out, or set "
                f"frames to {self.window} or more"
            )
        if self.window < self.frames:
            check_carries(get_preset(self.preset))
        return self

    def noise_config(self):
        """Return the NoiseConfig of these settings."""
        from rcv.diffusion import NoiseConfig

        return NoiseConfig(strategy=self.noise, alpha=self.noise_alpha, form=self.noise_form)

    def learning_rate_at(self, step):
        """Return the learning rate of optimizer step `step` (counted from 0); a function of the settings alone.

        The warm-up rises linearly and reaches the highest rate at step `warmup_steps`; its first step is not 0,
        since that would be a step that trains nothing. The decay would reach 0 at step `steps`.
        """
        peak, warmup = self.learning_rate, self.warmup_steps
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, self.steps - warmup)
        if self.schedule == "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * done))
        return peak if self.schedule == "constant" else peak * (1 - done)
