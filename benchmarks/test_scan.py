"""The scans: rcv's backends and their rivals."""

from .cases import ELEMENTWISE

OPERATIONS = ("recurrent_scan", *ELEMENTWISE)


def test_scan(measured, case, candidate, direction):
    measured(case, candidate, direction)
