"""What a study's numbers say, in sentences that follow from the intervals alone."""

from rcv.evaluation.bootstrap import LEVEL
from rcv.reproduce.intervals import LEAST_CELLS
from rcv.reproduce.table import SCORES


def findings(table):
    """Return sentences: the study's own arms against their rivals on motion truth, and what that rests on."""
    sentences = []
    for (own, rival), differences in table.shown()[1].items():
        interval = differences["truth"]
        numbers = f"{interval.mean:+.3f}"
        if interval.cells >= LEAST_CELLS:
            numbers += f" ({interval.low:+.3f} to {interval.high:+.3f})"
        told = {1: "is better than", -1: "is worse than", 0: "cannot be told from"}[interval.sign]
        counted = f"{interval.cells} cell{'s' if interval.cells > 1 else ''}"
        few = "" if interval.cells >= LEAST_CELLS else "; too few to tell"
        told = told if not few else "against"
        sentences.append(f"{own} {told} {rival} on {SCORES['truth']}: {numbers}, paired over {counted}{few}.")
    missing = sum(row.wanted - row.cells for row in table.rows)
    if missing:
        sentences.append(f"{missing} of {sum(row.wanted for row in table.rows)} cells are not computed yet.")
    if without := [row.arm for row in table.rows if not row.cells]:
        sentences.append(f"Arms of which none is: {'; '.join(without)}.")
    if any(row.failed for row in table.rows):
        named = ", ".join(f"{row.arm} ({row.failed})" for row in table.rows if row.failed)
        sentences.append(f"Trainings that diverged: {named}.")
    if sentences:
        sentences.append(
            f"Intervals: {LEVEL:.0%}, percentile bootstrap over cells; one cell is a theme and a seed."
        )
    return sentences
