"""curves.png: means, what a hostile log holds, atomic writing."""

import numpy as np
import pytest
from PIL import Image

from rcv.training.curves import smoothed, write_curves
from rcv.training.log import Evaluation, Record, StepLog


def write(path, kind, rows):
    log = StepLog(path, kind)
    for row in rows:
        log.append(kind(*row))
    log.close()


def test_means_are_of_the_last_values():
    values = np.random.default_rng(0).normal(size=30)
    expected = [values[max(0, i - 6) : i + 1].mean() for i in range(30)]
    np.testing.assert_allclose(smoothed(values, 7), expected)
    np.testing.assert_allclose(smoothed([1.0, np.nan, 3.0, np.inf], 2), [1.0, 1.0, 3.0, 3.0])


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert write_curves(tmp_path) is None
    write(tmp_path / "losses.csv", Record, [])
    assert write_curves(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["losses.csv"]


@pytest.mark.parametrize("losses", [[0.5], [0.0, 0.0], [float("nan"), 0.3], [1e-8, 1e8]])
def test_odd_losses_are_drawn(tmp_path, losses):
    write(
        tmp_path / "losses.csv", Record, [(step, loss, 1e-4, 0.1, 0.2) for step, loss in enumerate(losses, 1)]
    )
    write(tmp_path / "validation_losses.csv", Evaluation, [(0, 0.7), (2, 0.6)])
    with Image.open(write_curves(tmp_path)) as picture:
        assert picture.format == "PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curves.png", "losses.csv", "validation_losses.csv",
    ]  # fmt: skip
