"""temporal_attention: rcv's backends and their rivals."""

OPERATIONS = ("temporal_attention",)


def test_temporal_attention(measured, case, candidate, direction):
    measured(case, candidate, direction)
