"""Adapters by name and weight, and their mixtures."""

import logging
from pathlib import Path

import pytest
import torch

from rcv.diffusion import VideoPipeline
from rcv.diffusion.adapters import Weighted, weighted_adapters
from rcv.diffusion.config import GenerateConfig
from rcv.diffusion.generate import generate
from rcv.training import read_adapter, save_adapter
from tests.diffusion.conftest import quiet


@pytest.fixture(scope="module")
def adapters(base, tmp_path_factory):
    """Two adapters of one start, and its weights: {"start": ..., "a": path, "b": path}."""
    folder = tmp_path_factory.mktemp("adapters")
    torch.manual_seed(3)
    unet = VideoPipeline.from_base(base, preset="recurrent").unet
    start = {name: weight.clone() for name, weight in unet.adapter_state_dict().items()}
    for number, name in enumerate("ab"):
        generator = torch.Generator().manual_seed(number)
        changed = {key: w + 0.05 * torch.randn(w.shape, generator=generator) for key, w in start.items()}
        unet.load_adapter_state_dict(changed)
        save_adapter(unet, folder / name, base=str(base), base_digest="one", seed=0)
    return {"start": start, "a": folder / "a", "b": folder / "b", "image": unet.image_names}


def mixed(base, adapter):
    return VideoPipeline.from_base(base, adapter=adapter).unet.adapter_state_dict()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, []),
        ("runs/a", [Weighted(Path("runs/a"), 1.0)]),
        ("runs/a:0.7", [Weighted(Path("runs/a"), 0.7)]),
        (
            ["C:/runs/a", Path("runs/b:2")],
            [Weighted(Path("C:/runs/a"), 1.0), Weighted(Path("runs/b:2"), 1.0)],
        ),
        ({"runs/a": 2, "runs/b": -1}, [Weighted(Path("runs/a"), 2.0), Weighted(Path("runs/b"), -1.0)]),
    ],
)
def test_names_and_weights(given, expected):
    assert weighted_adapters(given) == expected


def test_a_colon_in_an_existing_name_is_no_weight(tmp_path):
    (tmp_path / "a:2").mkdir()
    assert weighted_adapters(f"{tmp_path}/a:2") == [Weighted(tmp_path / "a:2", 1.0)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("runs/a:nan", "weight of runs/a is nan, expected a finite number"),
        (["runs/a:1", "runs/b:-1"], "add up to 0, expected more than 0"),
        (["runs/a:1", "runs/a:2"], "runs/a is named twice"),
        ("runs/a:much", "runs/a:much does not exist"),
    ],
)
def test_names_and_weights_that_are_refused(base, given, message):
    with pytest.raises(ValueError, match=message):
        VideoPipeline.from_base(base, adapter=given)


def test_changes_of_the_bases_weights_add_up(base, adapters):
    mixture = mixed(base, {adapters["a"]: 0.7, adapters["b"]: 0.6})
    a, b = (read_adapter(adapters[name])[0] for name in "ab")
    image = [name for name in mixture if name in adapters["image"]]
    assert sorted({name.rsplit(".", 2)[1] for name in image}) == ["to_q"]
    for name in image:
        start = adapters["start"][name]
        expected = start + 0.7 * (a[name] - start) + 0.6 * (b[name] - start)
        torch.testing.assert_close(mixture[name], expected, msg=name)


def test_added_layers_are_averaged_and_their_outputs_scaled(base, adapters):
    mixture = mixed(base, {adapters["a"]: 0.5, adapters["b"]: 1.5})
    a, b = (read_adapter(adapters[name])[0] for name in "ab")
    added = [name for name in mixture if name not in adapters["image"]]
    for name in added:
        mean = (0.5 * a[name] + 1.5 * b[name]) / 2
        started_at_zero = not adapters["start"][name].any()
        torch.testing.assert_close(mixture[name], 2 * mean if started_at_zero else mean, msg=name)
    assert any(name.endswith("attn_temp.to_out.0.weight") for name in added)


def test_one_adapter_is_loaded_as_it_is(base, adapters):
    weights = read_adapter(adapters["a"])[0]
    for given in (adapters["a"], f"{adapters['a']}:1", [adapters["a"]]):
        assert all(torch.equal(tensor, weights[name]) for name, tensor in mixed(base, given).items())


def test_a_mixture_generates_and_its_settings_repeat_it(base, adapters, tmp_path):
    def config(**changes):
        quick = {
            "prompts": ["a fox"],
            "base": str(base),
            "frames": 2,
            "steps": 1,
            "output": tmp_path / "v.png",
        }
        return GenerateConfig(**{**quick, **changes})

    pictures = {}
    for name, adapter in {
        "a": adapters["a"],
        "b": str(adapters["b"]),
        "both": [f"{adapters['a']}:0.5", f"{adapters['b']}:0.5"],
    }.items():
        (file,) = generate(config(adapter=adapter), lambda *_: None)
        pictures[name] = file.read_bytes()
    assert len(set(pictures.values())) == 3
    generate(GenerateConfig.read_yaml(tmp_path / "v.yaml"), lambda *_: None)
    assert (tmp_path / "v.png").read_bytes() == pictures["both"]


def test_other_bases_presets_and_shapes_are_named(base, adapters, tmp_path):
    unet = VideoPipeline.from_base(base, preset="recurrent").unet
    save_adapter(unet, tmp_path / "other", base="other/base", base_digest="two")
    with pytest.raises(
        ValueError, match=r"a was trained with base .*other with 'other/base'; only adapters of"
    ):
        mixed(base, [adapters["a"], tmp_path / "other"])
    unet = VideoPipeline.from_base(base, preset="tune-a-video").unet
    save_adapter(unet, tmp_path / "preset", base=str(base), base_digest="one")
    with pytest.raises(
        ValueError, match=r"a was trained with preset 'recurrent', .*preset with 'tune-a-video'"
    ):
        mixed(base, [adapters["a"], tmp_path / "preset"])


def test_other_seeds_are_warned_of(base, adapters, tmp_path, caplog):
    unet = quiet(VideoPipeline.from_base(base, preset="recurrent")).unet
    save_adapter(unet, tmp_path / "c", base=str(base), base_digest="one", seed=1)
    with caplog.at_level(logging.WARNING, "rcv"):
        mixed(base, [adapters["a"], tmp_path / "c"])
    assert "trained with different seeds" in caplog.text
