"""Finetuning the embedded model on real clips: folders of them in the folder that RCV_TEST_VIDEOS names."""

import os
from pathlib import Path

import pytest

from rcv.training import FinetuneConfig, finetune

VIDEOS = os.environ.get("RCV_TEST_VIDEOS")
FOLDERS = sorted(path for path in Path(VIDEOS).iterdir() if path.is_dir()) if VIDEOS else []


@pytest.mark.slow
@pytest.mark.skipif(not VIDEOS, reason="RCV_TEST_VIDEOS names no folder")
@pytest.mark.parametrize("clips", FOLDERS, ids=lambda path: path.name)
def test_thirty_steps_lower_the_loss(tmp_path, clips):
    config = FinetuneConfig(clips=clips, steps=30, output=tmp_path / "run")
    result = finetune(config, show_progress=False)
    assert len(result.losses) == 30
    assert result.eval_losses[30] < result.eval_losses[0]
    assert sum(result.losses[20:]) < sum(result.losses[:10])
