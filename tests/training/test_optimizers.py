"""Optimizers by name; their state round-trips by the weights' names; 8-bit AdamW where bitsandbytes is."""

import sys
import types

import pytest
import torch

from rcv.training import FinetuneConfig, finetune
from rcv.training.optimizers import load_optimizer_state, make_optimizer, optimizer_state

INNER = "__bnb_optimizer_quant_state__"
TABLE = torch.linspace(-1, 1, 256)


class EightBit(torch.optim.Optimizer):
    """Stands in for bitsandbytes' AdamW8bit: state named, typed, shared and nested as by its version 0.50."""

    def __init__(self, params, lr, betas, eps, weight_decay):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def state_dict(self):
        states = super().state_dict()
        for number, state in states["state"].items():
            states["state"][number] = {
                "step": state["step"],
                INNER: {k: v for k, v in state.items() if k != "step"},
            }
        return states

    def load_state_dict(self, state_dict):
        (group,) = self.param_groups
        for number, p in enumerate(group["params"]):
            state = state_dict["state"][number]
            self.state[p] = {"step": state["step"], **state[INNER]}

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(step=0, state1=torch.zeros(p.shape, dtype=torch.uint8), qmap1=TABLE)
                state["step"] += 1
                state["state1"] += 1
                p -= group["lr"] * p.grad / state["state1"]


@pytest.fixture
def bitsandbytes(monkeypatch):
    module = types.ModuleType("bitsandbytes")
    module.optim = types.SimpleNamespace(AdamW8bit=EightBit)
    monkeypatch.setitem(sys.modules, "bitsandbytes", module)


def settings(**changes):
    return FinetuneConfig(learning_rate=0.1, weight_decay=0.5, adam_beta1=0.7, **changes)


def weights():
    return {name: torch.nn.Parameter(torch.arange(3.0) + k) for k, name in enumerate(("a.b", "c"))}


def steps(optimizer, values, numbers):
    for number in numbers:
        for k, value in enumerate(values):
            value.grad = torch.sin(torch.arange(3.0) + number + k)
        optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_a_state_goes_on_under_the_weights_names(name, bitsandbytes):
    whole, halves = weights(), weights()
    steps(make_optimizer(settings(optimizer=name), whole.values()), whole.values(), range(5))
    first = make_optimizer(settings(optimizer=name), halves.values())
    steps(first, halves.values(), range(3))
    tensors, plain = optimizer_state(first, list(halves))
    tensors = {path: tensor.clone() for path, tensor in tensors.items()}
    second = make_optimizer(settings(optimizer=name), halves.values())
    load_optimizer_state(second, list(halves), tensors, plain)
    if name == "adamw8bit":
        assert second.state[halves["a.b"]]["state1"].dtype == torch.uint8
    steps(second, halves.values(), range(3, 5))
    assert all(torch.equal(whole[key], halves[key]) for key in whole)


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_settings_reach_the_optimizer(name, bitsandbytes):
    (group,) = make_optimizer(settings(optimizer=name), weights().values()).param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (
        0.1,
        (0.7, 0.999),
        1e-8,
        0.5,
    )


def test_8_bits_without_bitsandbytes_are_refused_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"adamw8bit needs bitsandbytes, .*pip install bitsandbytes, or use"):
        make_optimizer(settings(optimizer="adamw8bit"), weights().values())


def test_a_run_with_8_bits_goes_on_bit_for_bit(quick, tmp_path, bitsandbytes):
    goes_on_bit_for_bit({**quick, "optimizer": "adamw8bit"}, tmp_path)
    with pytest.raises(ValueError, match="the checkpoint has optimizer 'adamw8bit', this run 'adamw'"):
        finetune(FinetuneConfig(**quick, resume="latest", output=tmp_path / "whole"), show_progress=False)


def test_a_run_with_bitsandbytes_goes_on_bit_for_bit(quick, tmp_path):
    pytest.importorskip("bitsandbytes")
    goes_on_bit_for_bit({**quick, "optimizer": "adamw8bit", "precision": "fp32"}, tmp_path)


def goes_on_bit_for_bit(settings, tmp_path):
    """Train 6 steps, and train 3 and then the other 3."""
    settings = {**settings, "warmup_steps": 0, "schedule": "constant"}
    whole = finetune(FinetuneConfig(**settings, output=tmp_path / "whole"), show_progress=False)
    first = {**settings, "steps": 3}
    finetune(FinetuneConfig(**first, output=tmp_path / "parts"), show_progress=False)
    parts = finetune(
        FinetuneConfig(**settings, resume="latest", output=tmp_path / "parts"), show_progress=False
    )
    assert parts.losses == whole.losses


def test_8_bits_are_refused_before_anything_is_written(quick, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match="adamw8bit needs bitsandbytes"):
        finetune(FinetuneConfig(**quick, optimizer="adamw8bit", output=tmp_path / "run"), show_progress=False)
    assert not (tmp_path / "run").exists()
