"""Recurrent state and the memory tokens read from it: cells rnn, mingru and rglru.

Start values follow one rule: exactly one factor on the path from loss to state is zero, the read-out W_ho (and b_a).
Zero W_zh as well, as the paper has it, and every gradient of the recurrence is zero for ever.
"""

import math

import torch
from torch import nn

from rcv.ops import mingru_scan, recurrent_scan, rglru_scan


class Memory(nn.Module):
    """One state vector per token, as wide as the tokens, and the tokens that frames attend to.

    Subclasses are the cells: `forward(u [B,F,N,C], h0 [B,N,C] float32 or None)` returns the states after each frame
    [B,F,N,C] in u's dtype and the last one in float32, to be carried into a following window.
    """

    def __init__(self, width, preset):
        super().__init__()
        self.w_zh = _orthogonal(width)
        self.w_ho = nn.Linear(width, width)
        nn.init.zeros_(self.w_ho.weight)
        nn.init.zeros_(self.w_ho.bias)

    def tokens(self, h, base=None):
        """Return m = base + W_ho h + b_a for states h [B,F,N,C] of the frames before."""
        correction = self.w_ho(h)
        return correction if base is None else base + correction


class RNN(Memory):
    """h_i = f(W_hh h_{i-1} + W_zh u_i + b_h), f = tanh or relu: the paper's cell."""

    def __init__(self, width, preset):
        super().__init__(width, preset)
        self.w_hh = nn.Parameter(nn.init.orthogonal_(torch.empty(width, width)))
        self.activation = preset.activation

    def forward(self, u, h0=None):
        x = self.w_zh(u)
        h0 = None if h0 is None else h0.to(x.dtype)
        h = recurrent_scan(x, self.w_hh.to(x.dtype), h0, activation=self.activation)
        return h, h[:, -1].float()


class MinGRU(Memory):
    """h_i = (1 - g_i) h_{i-1} + g_i c_i, gate and candidate from u_i alone (arXiv 2410.01201)."""

    def __init__(self, width, preset):
        super().__init__(width, preset)
        self.w_gate = _orthogonal(width)
        with torch.no_grad():  # chrono initialisation: channels forget over 2 to 16 frames
            self.w_gate.bias.copy_(-torch.linspace(1, 15, width).log())

    def forward(self, u, h0=None):
        return mingru_scan(self.w_gate(u), self.w_zh(u), h0)


class RGLRU(Memory):
    """h_i = a_i h_{i-1} + sqrt(1 - a_i^2) (s_i c_i), a_i = exp(-8 softplus(decay) r_i) (Griffin, arXiv 2402.19427)."""

    def __init__(self, width, preset):
        super().__init__(width, preset)
        self.w_forget = _orthogonal(width)
        self.w_input = _orthogonal(width)
        # the state's share that survives a frame with an open gate starts between .9 and .999
        decay = -torch.linspace(math.log(0.9), math.log(0.999), width) / 8
        self.decay = nn.Parameter(torch.expm1(decay).log())

    def forward(self, u, h0=None):
        return rglru_scan(self.w_forget(u), self.w_input(u), self.w_zh(u), self.decay, h0)


CELLS = {"rnn": RNN, "mingru": MinGRU, "rglru": RGLRU}


def _orthogonal(width):
    layer = nn.Linear(width, width)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
