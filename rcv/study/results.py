"""Means of ratings with intervals, and the paired test between two arms. Raters are the sample: videos are as given."""

import itertools
from typing import NamedTuple

import numpy as np

from rcv.evaluation.bootstrap import RESAMPLES, bootstrap_interval
from rcv.study.answers import QUESTIONS

EXACT_RATERS = 14
"""Up to here all 2^n signs are tried; beyond, as many random ones as there are resamples."""


class Mean(NamedTuple):
    """Mean rating of an arm over raters, with a 95 % interval; `low` and `high` are None for a single rater."""

    arm: str
    question: str
    raters: int
    ratings: int
    mean: float
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """Mean of first minus second over raters, of pairs that a rater rated on both sides; `p` of no difference."""

    first: str
    second: str
    question: str
    raters: int
    pairs: int
    mean: float
    low: float | None
    high: float | None
    p: float


def summary(rows):
    """Return the means of every arm and question, and the differences of every two arms.

    A rater's ratings are averaged first, so that a rater counts once and the ratings of one rater need not be
    independent. Intervals: bootstrap over raters (percentiles). p: permutation test of paired differences, two-sided,
    by exchanging the signs of the raters' mean differences.

    Parameters
    ----------
    rows : list of Row

    Returns
    -------
    (list of Mean, list of Difference)
    """
    means, differences = [], []
    arms = sorted({row.arm for row in rows})
    for question in QUESTIONS:
        asked = [row for row in rows if row.question == question]
        for arm in arms:
            ratings = [row for row in asked if row.arm == arm]
            by_rater = _averages((row.rater, row.rating) for row in ratings)
            if len(by_rater):
                means.append(Mean(arm, question, len(by_rater), len(ratings), *_with_interval(by_rater)))
        for first, second in itertools.combinations(arms, 2):
            rated = {
                (row.rater, row.name, row.arm): row.rating
                for row in asked
                if {row.arm, row.against} == {first, second}
            }
            paired = [
                (rater, rating - rated[rater, name, second])
                for (rater, name, arm), rating in rated.items()
                if arm == first and (rater, name, second) in rated
            ]
            by_rater = _averages(paired)
            if len(by_rater):
                found = (*_with_interval(by_rater), sign_flip_p(by_rater))
                differences.append(Difference(first, second, question, len(by_rater), len(paired), *found))
    return means, differences


def sign_flip_p(differences):
    """Return the two-sided p of a mean at least as far from 0, if each difference had either sign by chance."""
    differences = np.asarray(differences, float)
    count = len(differences)
    if count <= EXACT_RATERS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=count)))
        extreme = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
        return float(extreme.mean())
    signs = np.random.default_rng(0).choice((1.0, -1.0), (RESAMPLES, count))
    extreme = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9
    return float((extreme.sum() + 1) / (RESAMPLES + 1))


def _averages(values):
    """Return the mean of each rater's values, in the order of the raters' names."""
    by_rater = {}
    for rater, value in values:
        by_rater.setdefault(rater, []).append(value)
    return np.array([np.mean(by_rater[rater]) for rater in sorted(by_rater)])


def _with_interval(values):
    """Return the mean and the ends of its bootstrap interval, the same for the same values."""
    if len(values) < 2:
        return float(values.mean()), None, None
    return (float(values.mean()), *bootstrap_interval(values))
