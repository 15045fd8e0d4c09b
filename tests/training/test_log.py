"""losses.csv: exact numbers, rows of lost steps dropped, half rows passed over, full disks named."""

from pathlib import Path

import pytest

from rcv.training import OutputError
from rcv.training.log import Evaluation, Record, StepLog, read_log


def record(step):
    return Record(step, 1 / 3 / step, 3e-5, 0.1 * step, 0.25)


def write(path, steps, done=None):
    log = StepLog(path, Record, done)
    for step in steps:
        log.append(record(step))
    log.close()


def test_numbers_read_back_exactly(tmp_path):
    write(tmp_path / "losses.csv", range(1, 4))
    assert read_log(tmp_path / "losses.csv", Record) == [record(step) for step in range(1, 4)]
    assert (tmp_path / "losses.csv").read_text().startswith("step,loss,learning_rate,gradient_norm,seconds")


def test_rows_behind_the_checkpoint_are_dropped(tmp_path):
    write(tmp_path / "losses.csv", range(1, 6))
    write(tmp_path / "losses.csv", [4], done=3)
    assert [row.step for row in read_log(tmp_path / "losses.csv", Record)] == [1, 2, 3, 4]
    write(tmp_path / "losses.csv", [1])
    assert [row.step for row in read_log(tmp_path / "losses.csv", Record)] == [1]


def test_a_half_written_row_is_passed_over(tmp_path):
    write(tmp_path / "losses.csv", range(1, 4))
    text = (tmp_path / "losses.csv").read_text()
    (tmp_path / "losses.csv").write_text(text[:-5])
    assert [row.step for row in read_log(tmp_path / "losses.csv", Record)] == [1, 2]


def test_evaluations_start_before_the_first_step(tmp_path):
    log = StepLog(tmp_path / "eval_losses.csv", Evaluation)
    log.append(Evaluation(0, 0.5))
    log.close()
    assert read_log(tmp_path / "eval_losses.csv", Evaluation) == [Evaluation(0, 0.5)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_named():
    """/dev/full takes the file's opening and refuses what is written."""
    log = StepLog.__new__(StepLog)
    log.path, log.records = "runs/losses.csv", []
    log._file = open("/dev/full", "w")  # noqa: SIM115
    with pytest.raises(OutputError, match=r"losses.csv: cannot be written.*No space left.*free some space"):
        log.append(record(1))
    log.close()
