"""A tiny text-to-image model on disk, and pipelines on it."""

import copy

import pytest

from tests.tiny import make_tiny_sd


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """Folder of a tiny Stable Diffusion model."""
    return make_tiny_sd(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="session")
def loaded(base):
    """A pipeline that tests must not change: `pipe` is a copy."""
    from rcv.diffusion import VideoPipeline

    return quiet(VideoPipeline.from_base(base, preset="tune-a-video"))


@pytest.fixture
def pipe(loaded):
    """A pipeline of the preset tune-a-video, the test's own."""
    return quiet(type(loaded)(**{name: copy.deepcopy(part) for name, part in loaded.components.items()}))


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe
