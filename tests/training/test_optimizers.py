"""Optimizers by name; their state round-trips by the weights' names; 8-bit AdamW where bitsandbytes is."""

import sys
import types

import pytest
import torch

from rcv.training import FinetuneConfig, finetune
from rcv.training.optimizers import load_optimizer_state, make_optimizer, optimizer_state

GPU = torch.device("cuda")


class EightBit(torch.optim.Optimizer):
    """Stands in for bitsandbytes' AdamW8bit: state named and typed as theirs, which loading leaves as it is."""

    def __init__(self, params, lr, betas, eps, weight_decay):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def load_state_dict(self, state_dict):
        (group,) = self.param_groups
        for number, p in enumerate(group["params"]):
            self.state[p] = dict(state_dict["state"][number])

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(
                        step=0, state1=torch.zeros(p.shape, dtype=torch.uint8), absmax1=torch.ones(1)
                    )
                state["step"] += 1
                state["state1"] += 1
                p -= group["lr"] * p.grad / state["step"]


@pytest.fixture
def bitsandbytes(monkeypatch):
    module = types.ModuleType("bitsandbytes")
    module.optim = types.SimpleNamespace(AdamW8bit=EightBit)
    monkeypatch.setitem(sys.modules, "bitsandbytes", module)


def settings(**changes):
    return FinetuneConfig(learning_rate=0.1, weight_decay=0.5, adam_beta1=0.7, **changes)


def weights():
    return {name: torch.nn.Parameter(torch.arange(3.0) + k) for k, name in enumerate(("a.b", "c/d"))}


def steps(optimizer, values, numbers):
    for number in numbers:
        for k, value in enumerate(values):
            value.grad = torch.sin(torch.arange(3.0) + number + k)
        optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_a_state_goes_on_under_the_weights_names(name, bitsandbytes):
    whole, halves = weights(), weights()
    steps(make_optimizer(settings(optimizer=name), whole.values(), GPU), whole.values(), range(5))
    first = make_optimizer(settings(optimizer=name), halves.values(), GPU)
    steps(first, halves.values(), range(3))
    tensors, plain = optimizer_state(first, list(halves))
    tensors = {path: tensor.clone() for path, tensor in tensors.items()}
    second = make_optimizer(settings(optimizer=name), halves.values(), GPU)
    load_optimizer_state(second, list(halves), tensors, plain)
    if name == "adamw8bit":
        assert second.state[halves["a.b"]]["state1"].dtype == torch.uint8
    steps(second, halves.values(), range(3, 5))
    assert all(torch.equal(whole[key], halves[key]) for key in whole)


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_settings_reach_the_optimizer(name, bitsandbytes):
    (group,) = make_optimizer(settings(optimizer=name), weights().values(), GPU).param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (
        0.1,
        (0.7, 0.999),
        1e-8,
        0.5,
    )


def test_8_bits_without_bitsandbytes_are_refused_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"adamw8bit needs bitsandbytes, .*pip install bitsandbytes, or use"):
        make_optimizer(settings(optimizer="adamw8bit"), weights().values(), GPU)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the refusal is of a CPU")
def test_8_bits_on_a_cpu_are_refused_before_anything_is_written(quick, tmp_path):
    with pytest.raises(ValueError, match="adamw8bit runs on a GPU, this run is on a CPU"):
        finetune(FinetuneConfig(**quick, optimizer="adamw8bit", output=tmp_path / "run"), show_progress=False)
    assert not (tmp_path / "run").exists()
