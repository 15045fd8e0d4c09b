"""Settings of a run: refusals by name, sizes, the learning rate as a function of the step, YAML."""

from itertools import pairwise

import pytest
from pydantic import ValidationError

from rcv.training import FinetuneConfig


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"learning_rat": 1e-4}, "did you mean 'learning_rate'"),
        ({"preset": "recurent"}, "did you mean 'recurrent'"),
        ({"theme": "birds flyng"}, "did you mean 'birds flying'"),
        ({"precision": "fp61"}, "did you mean 'fp16'"),
        ({"noise": "autoregresive"}, "did you mean 'autoregressive'"),
        ({"crop": "centre"}, "did you mean 'center'"),
        ({"frames": 0}, "greater than or equal to 1"),
        ({"learning_rate": -1}, "greater than 0"),
        ({"noise_alpha": 1.5}, "less than or equal to 1"),
        ({"steps": 10, "warmup_steps": 20}, "more than all 10 steps"),
        ({"size": "64 by 64"}, "expected HEIGHTxWIDTH"),
        ({"size": "0x64"}, "at least 1 pixel"),
        ({"exclude_subject": ["elefant"]}, "did you mean 'elephant'"),
        ({"exclude_subject": ["elephant"], "clips": "mine"}, "cannot be given with clips"),
    ],
)
def test_refusals_name_the_setting_and_the_nearest_value(settings, expected):
    with pytest.raises(ValidationError) as error:
        FinetuneConfig(**settings)
    assert expected in str(error.value)


def test_excluding_every_subject_is_refused():
    from rcv.world import SUBJECTS

    with pytest.raises(ValidationError, match="leaves no subject of 'animal walking'"):
        FinetuneConfig(exclude_subject=SUBJECTS["animal walking"])


@pytest.mark.parametrize("given", ["320x512", "320 512", "(320, 512)", "[320,512]", [320, 512], (320, 512)])
def test_size_is_read_as_height_and_width(given):
    assert FinetuneConfig(size=given).size == (320, 512)


@pytest.mark.parametrize("given", [64, "64"])
def test_one_number_is_a_square(given):
    assert FinetuneConfig(size=given).size == (64, 64)


def test_every_setting_has_a_default_and_a_description():
    for name, field in FinetuneConfig.model_fields.items():
        assert not field.is_required(), name
        assert field.description, name


def test_yaml_round_trip(tmp_path):
    config = FinetuneConfig(size="64x96", learning_rate=1e-4, output=tmp_path / "run", theme="raining")
    config.write_yaml(tmp_path / "config.yaml")
    assert FinetuneConfig.read_yaml(tmp_path / "config.yaml") == config


def test_yaml_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(ValueError, match="expected 'name: value' lines"):
        FinetuneConfig.read_yaml(tmp_path / "config.yaml")


def test_learning_rate_warms_up_then_decays():
    config = FinetuneConfig(steps=110, warmup_steps=10, learning_rate=1.0)
    rates = [config.learning_rate_at(step) for step in range(110)]
    assert rates[0] == pytest.approx(1 / 11)
    assert all(later > earlier for earlier, later in pairwise(rates[:11]))
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[109] == pytest.approx(0.01)


def test_schedules_differ_after_the_warmup_only():
    rates = {
        schedule: FinetuneConfig(steps=20, warmup_steps=4, learning_rate=1.0, schedule=schedule)
        for schedule in ("linear", "cosine", "constant")
    }
    for step in range(4):
        assert len({config.learning_rate_at(step) for config in rates.values()}) == 1
    assert rates["constant"].learning_rate_at(19) == 1.0
    assert rates["cosine"].learning_rate_at(12) == pytest.approx(0.5)
    assert rates["cosine"].learning_rate_at(8) > rates["linear"].learning_rate_at(8)
