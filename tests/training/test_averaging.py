"""The running mean of the trained weights: its formula, and what is measured and written of it."""

import pytest
import torch

from rcv.training import FinetuneConfig, finetune, read_adapter
from rcv.training.averaging import WeightAverage
from rcv.training.checkpoint import load_checkpoint, newest_checkpoint


def run(settings, output, **changes):
    return finetune(FinetuneConfig(**{**settings, **changes}, output=output), show_progress=False)


def test_the_mean_follows_its_formula():
    weight = torch.nn.Parameter(torch.zeros(3))
    average, expected = WeightAverage({"w": weight}, 0.6), torch.zeros(3)
    for step in range(20):
        with torch.no_grad():
            weight.copy_(torch.arange(3.0) * step)
        average.update()
        decay = min(0.6, (1 + step) / (10 + step)) if step else 0.0
        expected = decay * expected + (1 - decay) * weight.detach()
    torch.testing.assert_close(average.state_dict()["w"], expected)
    assert average.state_dict()["w"].dtype == torch.float32


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_adapter_holds_the_mean_of_the_weights_in_float32(quick, tmp_path, precision):
    plain = run(quick, tmp_path / "plain", precision=precision)
    averaged = run(quick, tmp_path / "averaged", precision=precision, ema_decay=0.9)
    assert averaged.losses == plain.losses  # the training itself does not notice
    assert averaged.eval_losses[0] == plain.eval_losses[0]
    assert averaged.eval_losses[6] != plain.eval_losses[6]
    checkpoint = load_checkpoint(newest_checkpoint(tmp_path / "averaged" / "checkpoints"))
    last, means = checkpoint.tensors["weights"], checkpoint.tensors["average"]
    written = read_adapter(averaged.adapter)[0]
    unaveraged = read_adapter(plain.adapter)[0]
    for name, mean in means.items():
        assert mean.dtype == torch.float32
        assert torch.equal(written[name], mean)
        assert torch.equal(unaveraged[name], last[name])
    assert any(not torch.equal(means[name], last[name]) for name in means)


def test_a_checkpoint_without_a_mean_starts_one(quick, tmp_path):
    run(quick, tmp_path / "run")
    weights = load_checkpoint(newest_checkpoint(tmp_path / "run" / "checkpoints")).tensors["weights"]
    longer = run(quick, tmp_path / "run", steps=7, ema_decay=0.999, resume="latest")
    last = load_checkpoint(newest_checkpoint(tmp_path / "run" / "checkpoints"))
    decay = min(0.999, 7 / 16)
    for name, mean in read_adapter(longer.adapter)[0].items():
        expected = decay * weights[name] + (1 - decay) * last.tensors["weights"][name]
        torch.testing.assert_close(mean, expected)
