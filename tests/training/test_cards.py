"""Settings that are shipped for cards of some size: they load by name, and their cards hold them."""

import pytest

from rcv.cli.options import ConfigError, resolve
from rcv.models.recompute import MODES
from rcv.planning import Setting, budget, model_shape, plan
from rcv.training import FinetuneConfig

# What PyTorch sees of the smallest card of each size, in GiB: a quarter to 1.3 less than its name says.
SMALLEST = {"8gb": "7.6GiB", "12gb": "11.6GiB", "16gb": "t4", "24gb": "22.0GiB"}


def test_every_card_is_known_by_its_name():
    assert set(FinetuneConfig.shipped_names()) == set(SMALLEST)
    for name in SMALLEST:
        settings = FinetuneConfig.read_yaml(name)
        assert settings.gradient_checkpointing == "auto"
        assert resolve(FinetuneConfig, name, {}) == settings
        assert resolve(FinetuneConfig, name, {"frames": 8}).frames == 8


def test_an_unknown_name_suggests_the_nearest_and_a_file_comes_first(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="unknown configuration '16gbs', did you mean '16gb'"):
        resolve(FinetuneConfig, "16gbs", {})
    with pytest.raises(ConfigError, match=r"16gb\.yaml: no such configuration file"):
        resolve(FinetuneConfig, "16gb.yaml", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "8gb").mkdir()
    assert resolve(FinetuneConfig, "8gb", {}).frames == 16
    (tmp_path / "16gb").write_text("frames: 5")
    assert resolve(FinetuneConfig, "16gb", {}).frames == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_stable_diffusion_fits_with_a_running_mean_in_a_mode_that_auto_chooses(name):
    settings, limit = FinetuneConfig.read_yaml(name), budget(SMALLEST[name])
    plans = {}
    for mode in MODES:
        height, width = settings.size
        setting = Setting(
            model_shape("sd1.4"),
            preset=settings.preset,
            frames=settings.frames,
            height=height,
            width=width,
            batch=settings.batch_size,
            precision="fp16",
            checkpointing=mode,
            averaged=True,
        )
        plans[mode] = plan("train", setting, limit)
        if plans[mode].fits:
            break
    assert plans[mode].fits
    print(name, mode, f"{plans[mode].needed / 2**30:.2f} of {limit.total / 2**30:.2f} GiB")
