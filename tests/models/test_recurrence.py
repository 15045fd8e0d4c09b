"""The cells by their formulas, their start values, and states carried from one window of frames into the next."""

import math

import pytest
import torch
import torch.nn.functional as F

from rcv.models.layers import CastLinear
from rcv.models.presets import get_preset
from rcv.models.recurrence import CELLS

WIDTH = 12


def cell_of(kind):
    torch.manual_seed(0)
    cell = CELLS[kind](WIDTH, get_preset("paper"))
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return cell


def state_by_formula(cell, kind, h, u):
    """One step of the recurrence for tokens u [N,C]."""
    if kind == "rnn":
        return torch.tanh(h @ cell.w_hh.T + cell.w_zh(u))
    if kind == "mingru":
        gate = torch.sigmoid(cell.w_gate(u))
        return (1 - gate) * h + gate * cell.w_zh(u)
    a = torch.exp(-8 * F.softplus(cell.decay) * torch.sigmoid(cell.w_forget(u)))
    return a * h + torch.sqrt(-torch.expm1(2 * a.log())) * torch.sigmoid(cell.w_input(u)) * cell.w_zh(u)


@pytest.mark.parametrize("kind", CELLS)
def test_cells_are_their_formulas(kind):
    cell = cell_of(kind)
    u = torch.randn(2, 6, 5, WIDTH)
    states, last = cell(u)
    h = torch.zeros(2, 5, WIDTH)
    for i in range(6):
        h = state_by_formula(cell, kind, h, u[:, i])
        torch.testing.assert_close(states[:, i], h, rtol=0, atol=5e-6)
    torch.testing.assert_close(last, h, rtol=0, atol=5e-6)
    assert last.dtype == torch.float32


@pytest.mark.parametrize("kind", CELLS)
def test_a_carried_state_continues_the_recurrence(kind):
    cell = cell_of(kind)
    u = torch.randn(1, 7, 3, WIDTH)
    whole, last = cell(u)
    first, carried = cell(u[:, :4])
    second, end = cell(u[:, 4:], carried)
    torch.testing.assert_close(torch.cat((first, second), 1), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(end, last, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cells_in_half_precision(kind, dtype):
    """Half-precision tokens, float32 masters: within the rounding of the inputs, states in the tokens' dtype."""
    cell = cell_of(kind)
    u = torch.randn(1, 16, 3, WIDTH)
    exact, _ = cell(u)
    for module in cell.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = CastLinear
    half, last = cell(u.to(dtype))
    assert half.dtype == dtype and last.dtype == torch.float32
    tolerance = 4e-3 if dtype == torch.float16 else 4e-2
    assert (half.float() - exact).abs().max() <= tolerance * exact.abs().max()


@torch.no_grad()
def test_start_values():
    """One zero factor (the read-out), orthogonal maps, gates that forget over 2 to 16 frames or keep .9 to .999."""
    for kind, preset in (("rnn", "paper"), ("mingru", "recurrent"), ("rglru", "recurrent")):
        cell = CELLS[kind](WIDTH, get_preset(preset))
        assert not cell.w_ho.weight.any() and not cell.w_ho.bias.any()
        for name, parameter in cell.named_parameters():
            if name.endswith("weight") and "w_ho" not in name:
                torch.testing.assert_close(parameter @ parameter.T, torch.eye(WIDTH), rtol=0, atol=1e-5)
    kept = 1 - torch.sigmoid(CELLS["mingru"](WIDTH, get_preset("recurrent")).w_gate.bias)
    assert math.isclose(kept.min(), 1 / 2, rel_tol=1e-5) and math.isclose(kept.max(), 15 / 16, rel_tol=1e-5)
    open_gate = torch.exp(-8 * F.softplus(CELLS["rglru"](WIDTH, get_preset("recurrent")).decay))
    assert math.isclose(open_gate.min(), 0.9, rel_tol=1e-4) and math.isclose(
        open_gate.max(), 0.999, rel_tol=1e-4
    )


def test_tokens_are_base_plus_read_out():
    cell = cell_of("mingru")
    torch.nn.init.normal_(cell.w_ho.weight)
    h, base = torch.randn(2, 1, 3, 5, WIDTH).unbind()
    read_out = h @ cell.w_ho.weight.T + cell.w_ho.bias
    torch.testing.assert_close(cell.tokens(h), read_out)
    torch.testing.assert_close(cell.tokens(h, base), base + read_out)
