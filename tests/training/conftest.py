"""A tiny base and a few clips, shared by the tests of training."""

import pytest

from tests.tiny import make_tiny_sd
from tests.training.clip_files import write_clip


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return str(make_tiny_sd(tmp_path_factory.mktemp("base") / "sd"))


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for seed in range(3):
        write_clip(folder, f"{seed}.mp4", frames=7, size=(32, 40), seed=seed, caption=f"square {seed}")
    return folder


@pytest.fixture
def quick(base, clips):
    """Settings of a run of a second."""
    return {"base": base, "clips": clips, "frames": 3, "steps": 6, "learning_rate": 1e-2, "eval_draws": 2}
