"""Cells: one arm on one theme with one seed, known by a fingerprint of its settings and of the program."""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cache, cached_property

from rcv.reproduce.arms import Arm
from rcv.reproduce.code import code_digest
from rcv.reproduce.prompts import hidden_subject, prompt_scenes
from rcv.training.adapter import library_versions
from rcv.training.config import FinetuneConfig
from rcv.training.setup import base_fingerprint, base_path
from rcv.video import replacing
from rcv.world.model import clip_path

TRAINING_CODE = ("rcv.training.run",)
CELL_CODE = ("rcv.reproduce.sample", "rcv.reproduce.prompts")
"""What a result depends on: not on the list of arms, which may grow."""
NOT_RESULTS = ("output", "workers", "checkpoint_every", "keep_checkpoints", "resume", "memory", "cache")
"""Settings of a training that don't change what it computes."""


@dataclass(frozen=True)
class Cell:
    """One arm on one theme with one seed.

    Attributes
    ----------
    config : ReproduceConfig
    arm : Arm
    theme : str
    seed : int
    """

    config: object
    arm: Arm
    theme: str
    seed: int

    @property
    def hidden(self):
        """The subject that is kept out of the clips, or None."""
        return hidden_subject(self.theme, self.seed) if self.arm.hide_subject else None

    @property
    def frames(self):
        """Frames of a video."""
        return self.arm.frames or self.config.frames

    @cached_property
    def prompts(self):
        """[(group, Scene)] of the videos to generate."""
        return [
            (group, scene)
            for group in self.arm.groups
            for scene in prompt_scenes(
                self.theme, self.seed, self.config.prompts, group, self.config.clip_count, self.hidden
            )
        ]

    @cached_property
    def training(self):
        """The FinetuneConfig of the arm, or None where nothing is trained."""
        arm, config = self.arm, self.config
        if arm.preset is None:
            return None
        settings = {
            "base": config.base,
            "preset": arm.preset,
            "theme": self.theme,
            "exclude_subject": [self.hidden] if self.hidden else [],
            "clip_count": 1 if arm.one_shot else config.clip_count,
            "frames": config.frames,
            "steps": config.steps,
            "learning_rate": config.learning_rate,
            "seed": self.seed,
            "eval_draws": 0,
            "workers": 0,
            "memory": "none",
            "cache": str(config.output / "cache"),
            "gradient_checkpointing": "none",
            **arm.settings,
        }
        fingerprint = training_fingerprint(FinetuneConfig(**settings))
        output = config.output / "trainings" / fingerprint / "run"
        return FinetuneConfig(**settings, output=output, checkpoint_every=100, keep_checkpoints=1)

    @cached_property
    def fingerprint(self):
        """The name of the cell's folder: settings, prompts, program and libraries decide it."""
        arm, config, training = self.arm, self.config, self.training
        return _digest(
            {
                "training": None if training is None else training.output.parent.name,
                "arm": [arm.guided, arm.cut, arm.noise],
                "prompts": [[group, repr(scene)] for group, scene in self.prompts],
                "frames": self.frames,
                "sampling": [config.sampling_steps, config.guidance_scale, self.seed],
                "clip": _base_digest(str(config.clip or clip_path())),
                "code": code_digest(*CELL_CODE),
                "versions": library_versions(),
            }
        )

    @property
    def folder(self):
        """Where the result lies or will lie."""
        return self.config.output / "cells" / self.fingerprint

    def result(self):
        """Return what `write_result` wrote, or None."""
        file = self.folder / "result.json"
        try:
            return _with_nan(json.loads(file.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):  # a file in the way: what writes says so
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file} is damaged ({error}); remove it, and the cell is computed again"
            ) from error


def study_cells(config, study):
    """Return the Cells of a Study: all arms of a theme and seed before the next, so that they are compared early."""
    return [
        Cell(_of_arm(config, arm), arm, theme, seed)
        for seed in study.seeds
        for theme in study.themes
        for arm in study.arms
    ]


def _of_arm(config, arm):
    return config if arm.trained_frames is None else config.model_copy(update={"frames": arm.trained_frames})


def training_fingerprint(settings):
    """Return a digest of what a FinetuneConfig trains, by which program and from which base."""
    dumped = settings.model_dump(mode="json")
    return _digest(
        {
            "settings": {name: value for name, value in dumped.items() if name not in NOT_RESULTS},
            "base": _base_digest(base_path(settings)),
            "code": code_digest(*TRAINING_CODE),
            "versions": library_versions(),
        }
    )


def write_result(folder, result):
    """Write a cell's result: the file appears whole, and with it the cell is done."""
    with replacing(folder / "result.json") as part:
        part.write_text(json.dumps(_without_nan(result), indent=1), encoding="utf-8")


_base_digest = cache(base_fingerprint)  # of a CLIP's folder as well


def _digest(described):
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _without_nan(value):
    """JSON has no NaN: null stands for it among numbers."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(result):
    for video in result["videos"]:
        video["scores"] = {k: float("nan") if v is None else v for k, v in video["scores"].items()}
    return result
