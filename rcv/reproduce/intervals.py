"""Means with bootstrap intervals, over cells: prompts of one training are not independent of each other."""

from dataclasses import dataclass

import numpy as np

from rcv.evaluation.bootstrap import bootstrap_interval

LEAST_CELLS = 6
"""Of fewer cells a percentile interval is too narrow to speak of."""


@dataclass(frozen=True)
class Interval:
    """A mean and the percentiles of its bootstrap distribution, nan where cells are too few for them."""

    mean: float
    low: float
    high: float
    cells: int

    @property
    def sign(self):
        """1 or -1 if the interval lies on one side of 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def mean_interval(values):
    """Return the Interval of the mean of {cell: value}; nan values are left out.

    By `rcv.evaluation.bootstrap`, over cells.
    """
    numbers = np.array([value for _, value in sorted(values.items()) if np.isfinite(value)], dtype=np.float64)
    if not len(numbers):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    if len(numbers) < LEAST_CELLS:
        return Interval(float(numbers.mean()), float("nan"), float("nan"), len(numbers))
    return Interval(float(numbers.mean()), *bootstrap_interval(numbers), len(numbers))


def paired_interval(own, rival):
    """Return the Interval of the mean of own - rival, two {cell: value}, over the cells that both have."""
    return mean_interval({cell: own[cell] - rival[cell] for cell in own.keys() & rival.keys()})
