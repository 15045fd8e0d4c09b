"""frame_attention: rcv's backends and their rivals."""

OPERATIONS = ("frame_attention",)


def test_frame_attention(measured, case, candidate, direction):
    measured(case, candidate, direction)
