"""Percentile bootstrap intervals of means."""

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95


def bootstrap_interval(values):
    """Return the ends (low, high) of the percentile bootstrap interval of a mean, the same for the same values.

    Parameters
    ----------
    values : float array [n]
        Independent of each other, all of one weight; resampled 10 000 times. The interval covers 95 %.
    """
    values = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
