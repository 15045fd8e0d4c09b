"""Finetuning the embedded model on real clips, which are beside a checkout where there are any."""

from pathlib import Path

import pytest

from rcv.training import FinetuneConfig, finetune

VIDEOS = Path(__file__).parents[3] / "shared" / "videos"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["asl", "clips"])
def test_thirty_steps_lower_the_loss(tmp_path, name):
    if not (VIDEOS / name).is_dir():
        pytest.skip(f"{VIDEOS / name} is not here")
    config = FinetuneConfig(clips=VIDEOS / name, steps=30, output=tmp_path / "run")
    result = finetune(config, show_progress=False)
    assert len(result.losses) == 30
    assert result.eval_losses[30] < result.eval_losses[0]
    assert sum(result.losses[20:]) < sum(result.losses[:10])
