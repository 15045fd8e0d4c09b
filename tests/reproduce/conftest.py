"""A tiny base and a tiny CLIP, and a study on them that takes seconds."""

import pytest

from rcv.reproduce.config import ReproduceConfig
from rcv.reproduce.schedule import compute_all
from tests.tiny import make_tiny_clip, make_tiny_sd

ARMS = ["recurrent", "tune-a-video guided, one shot"]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"base": str(make_tiny_sd(folder / "sd")), "clip": make_tiny_clip(folder / "clip")}


@pytest.fixture(scope="session")
def tiny(models):
    """Settings without an output: two arms, one theme, two seeds."""
    sizes = {"frames": 4, "clip_count": 2, "steps": 2, "prompts": 1, "sampling_steps": 2}
    return {**models, **sizes, "themes": ["waterfalls"], "seeds": [0, 1], "arms": ARMS}


@pytest.fixture(scope="session")
def computed(tiny, tmp_path_factory):
    """The ReproduceConfig of table1 with all of its cells there, and the lines that were said."""
    config = ReproduceConfig(**tiny, output=tmp_path_factory.mktemp("table1"))
    lines = []
    assert compute_all(config, lines.append)
    return config, lines
