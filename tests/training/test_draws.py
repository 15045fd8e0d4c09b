"""Draws depend on (seed, step, sample index) and on nothing else."""

from collections import Counter

import torch

from rcv.training.draws import clip_at, draw_generator, draw_seed, timestep_at


def test_a_draw_repeats_and_differs_in_every_argument():
    def numbers(*where):
        return torch.randn(8, generator=draw_generator(*where)).tolist()

    base = numbers(0, "noise", 3, 5)
    assert base == numbers(0, "noise", 3, 5)
    for other in [
        (1, "noise", 3, 5),
        (0, "time", 3, 5),
        (0, "noise", 4, 5),
        (0, "noise", 3, 6),
        (0, "noise", 5, 3),
    ]:
        assert numbers(*other) != base


def test_seeds_do_not_depend_on_the_process():
    assert draw_seed(7, "noise", 1, 2) == 6792248950302685122


def test_every_epoch_holds_every_clip_once_in_another_order():
    epochs = [[clip_at(3, 7 * epoch + place, 7) for place in range(7)] for epoch in range(20)]
    assert all(Counter(epoch) == Counter(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 10


def test_timesteps_are_spread_evenly_over_every_stretch():
    for seed, first in [(0, 0), (1, 137), (2, 10**6)]:
        drawn = [timestep_at(seed, position, 1000) for position in range(first, first + 50)]
        assert all(3 <= sum(low <= t < low + 100 for t in drawn) <= 7 for low in range(0, 1000, 100))
    assert len({timestep_at(seed, 0, 1000) for seed in range(50)}) > 40
    assert {timestep_at(0, position, 10) for position in range(100)} == set(range(10))
