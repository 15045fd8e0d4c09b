"""recurrent_scan and gated_scan: rcv's backends and their rivals."""

OPERATIONS = ("recurrent_scan", "gated_scan")


def test_scan(measured, case, candidate, direction):
    measured(case, candidate, direction)
