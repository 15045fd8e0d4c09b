"""Checkpoints stay loadable through kills, full disks and damage; folders belong to one run at a time."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from rcv.training import checkpoint as module
from rcv.training.checkpoint import (
    CheckpointError,
    broken,
    checkpoint_path,
    clear_leftovers,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from rcv.training.lock import FolderBusyError, folder_lock


def tensors(value=1.0):
    return {"weights": {"a.b": torch.full((3, 4), value)}, "optimizer": {"a.b/step": torch.tensor(value)}}


def save(folder, step, keep=2):
    return save_checkpoint(folder, step, tensors(float(step)), {"settings": {"seed": step}}, keep)


def steps_in(folder):
    return [int(path.name.removeprefix("step-")) for path in list_checkpoints(folder)]


def test_round_trip_is_exact(tmp_path):
    values = {
        "weights": {"x": torch.randn(5, 3), "half": torch.randn(4).half()},
        "optimizer": {"x/n": torch.tensor(3)},
    }
    path = save_checkpoint(tmp_path, 300, values, {"scaler": {"scale": 65536.0}}, keep=1)
    assert path.name == "step-000300"
    loaded = load_checkpoint(path)
    assert loaded.step == 300
    assert loaded.state["scaler"] == {"scale": 65536.0}
    for group, members in values.items():
        assert loaded.tensors[group].keys() == members.keys()
        for name, tensor in members.items():
            assert loaded.tensors[group][name].dtype == tensor.dtype
            assert torch.equal(loaded.tensors[group][name], tensor)


def test_the_newest_are_kept(tmp_path):
    for step in (9, 10, 100, 99):
        save(tmp_path, step, keep=2)
    assert steps_in(tmp_path) == [99, 10]


def test_a_run_set_back_drops_the_steps_behind_it(tmp_path):
    for step in (100, 200, 300):
        save(tmp_path, step, keep=5)
    save(tmp_path, 150, keep=5)
    assert steps_in(tmp_path) == [150, 100]


def test_a_step_saved_again_is_replaced(tmp_path):
    save(tmp_path, 5)
    save_checkpoint(tmp_path, 5, tensors(7.0), {}, keep=2)
    assert load_checkpoint(checkpoint_path(tmp_path, 5)).tensors["weights"]["a.b"][0, 0] == 7


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "no manifest", "empty manifest"])
def test_damaged_checkpoints_are_passed_over(tmp_path, damage):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    weights, manifest = newest / "weights.safetensors", newest / "manifest.json"
    content = bytearray(weights.read_bytes())
    if damage == "cut":
        weights.write_bytes(content[:-1])
    elif damage == "flip":
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "missing":
        weights.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text("")
    assert broken(newest)
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        load_checkpoint(newest)
    assert newest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 1)


@pytest.mark.parametrize("call", ["os.replace", "os.fsync", "save_file"])
def test_a_failing_disk_leaves_the_former_checkpoint(tmp_path, monkeypatch, call):
    save(tmp_path, 1)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module if call == "save_file" else os, call.removeprefix("os."), full)
    with pytest.raises(CheckpointError, match=r"step 2 could not be written.*No space left.*step-000001"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert load_checkpoint(newest_checkpoint(tmp_path)).step == 1


FILL = """
import resource, sys, torch
from rcv.training.checkpoint import CheckpointError, save_checkpoint
folder = sys.argv[1]
save_checkpoint(folder, 1, {"weights": {"a": torch.zeros(10)}}, {}, keep=3)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(folder, 2, {"weights": {"a": torch.zeros(100_000)}}, {}, keep=3)
except CheckpointError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file size limit for processes")
def test_a_file_that_the_system_cuts_short_leaves_the_former_checkpoint(tmp_path):
    """The system refuses to write behind 100 kB, in the middle of the weights, as a full disk does."""
    run = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 7, run.stderr
    assert "the last complete checkpoint is" in run.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert newest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 1)


WRITE_FOR_EVER = """
import sys, torch
from rcv.training.checkpoint import clear_leftovers, save_checkpoint
folder, step = sys.argv[1], int(sys.argv[2])
clear_leftovers(folder)
while True:
    step += 1
    values = {"weights": {"a": torch.full((64, 64), float(step))}, "optimizer": {"a/n": torch.tensor(step)}}
    save_checkpoint(folder, step, values, {"seed": step}, keep=2)
    print(step, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
def test_kill_at_any_moment_leaves_a_loadable_checkpoint(tmp_path):
    """A process that does nothing but write checkpoints is killed five times at moments spread over a write."""
    reached = 0
    for round_number in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path), str(reached)],
            stdout=subprocess.PIPE,
            text=True,
        )
        announced = int(process.stdout.readline())
        time.sleep(0.0059 * round_number)
        process.send_signal(signal.SIGKILL)
        announced = max([announced, *(int(line) for line in process.stdout.read().split())])
        process.wait()
        newest = newest_checkpoint(tmp_path)
        loaded = load_checkpoint(newest)
        assert loaded.step >= announced
        assert torch.all(loaded.tensors["weights"]["a"] == loaded.step)
        assert loaded.tensors["optimizer"]["a/n"] == loaded.step == loaded.state["seed"]
        assert not any(broken(path) for path in list_checkpoints(tmp_path))
        reached = loaded.step
    clear_leftovers(tmp_path)
    assert all(path.name.startswith("step-") for path in tmp_path.iterdir())


HOLD = """
import sys, time
from rcv.training.lock import folder_lock
with folder_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(FolderBusyError, match=f"another run is writing.*process {process.pid}"),
            folder_lock(tmp_path),
        ):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with folder_lock(tmp_path):
        pass
