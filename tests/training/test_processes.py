"""Several processes draw and learn what one does, start by the configurations in docs, and notice when one is gone."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from rcv.training import FinetuneConfig, ProcessLostError, finetune
from rcv.training.checkpoint import newest_checkpoint
from rcv.training.log import Record, Validation, read_log
from rcv.training.processes import check_replicated, naming_lost_processes
from rcv.training.resume import check_agreement
from tests.training.clip_files import write_clip

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = ROOT / "docs" / "accelerate"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
EVERYTHING = {"hold_out": 1, "patience": 1, "ema_decay": 0.9, "debiased_loss": 1}

PROGRAM = """
import os, signal, sys
from rcv.training import FinetuneConfig, finetune
from rcv.training.trainer import Trainer

config, dying = FinetuneConfig.read_yaml(sys.argv[1]), sys.argv[2:]
train = Trainer.train

def train_or_die(self):
    if dying == [os.environ["RANK"]] and self.step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return train(self)

Trainer.train = train_or_die
for preset in os.environ.get("PRESETS", config.preset).split():
    changes = {"preset": preset, "output": config.output / preset if "PRESETS" in os.environ else config.output}
    finetune(config.model_copy(update=changes), show_progress=False)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(settings, output, tmp_path, launcher, *arguments, **environment):
    """A process that trains with a launcher, or with none where that is an empty list."""
    file = tmp_path / f"{output.name}.yaml"
    FinetuneConfig(**settings, output=output).write_yaml(file)
    (tmp_path / "program.py").write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, *launcher, str(tmp_path / "program.py"), str(file), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
    )


def ended(*processes):
    """What processes say, once all have ended."""
    try:
        return [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


def losses(run):
    return [record.loss for record in read_log(run / "losses.csv", Record)]


def alone(settings, output, **changes):
    """A run in this process with as many samples a step, each a batch of its own, as two processes have."""
    config = FinetuneConfig(**{**settings, **changes}, gradient_accumulation=2, output=output)
    return finetune(config, show_progress=False)


def with_clips_of_two_shapes(settings, folder):
    """Settings for other clips, which buckets tell apart, and with a cache that processes share."""
    for number in range(4):
        size = (32, 32) if number % 2 else (32, 48)
        write_clip(folder / "clips", f"{number}.mp4", size=size, seed=number, caption=f"square {number}")
    kept = {name: value for name, value in settings.items() if name != "frames"}
    return {**kept, "clips": folder / "clips", "cache": str(folder / "cache")}


def accelerate(name, *options):
    return ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGURATIONS / name), *options]


def test_a_process_that_would_train_another_run_says_how_it_differs(monkeypatch):
    mine = {"settings": FinetuneConfig().model_dump(mode="json"), "base": "b", "samples_per_step": 2}
    mine |= {"clips": {"0.mp4": "x", "1.mp4": "y"}, "validation_clips": {}}
    first = {**mine, "step": 4}
    monkeypatch.setattr("rcv.training.resume.broadcast_object_list", lambda _: [first])
    second = SimpleNamespace(num_processes=2, process_index=1)
    check_agreement(mine, 4, second)
    first |= {"clips": {"0.mp4": "x", "1.mp4": "z"}}
    with pytest.raises(
        ValueError, match=r"process 1 of 2 would(.|\n)*clip 1.mp4: its content(.|\n)*on from: 4 -> None"
    ):
        check_agreement(mine, None, second)


def test_a_model_in_parts_is_refused():
    check_replicated(SimpleNamespace(distributed_type=DistributedType.MULTI_GPU))
    with pytest.raises(
        ValueError, match="distributed_type is FSDP, expected one of NO, MULTI_CPU, MULTI_GPU"
    ):
        check_replicated(SimpleNamespace(distributed_type=DistributedType.FSDP))


def test_only_what_tells_of_a_lost_process_is_named_so():
    pair, one = (SimpleNamespace(num_processes=n, process_index=0) for n in (2, 1))
    closed = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:123")
    for error, accelerator, kind in (
        (closed, pair, ProcessLostError),
        (torch.distributed.DistBackendError("watchdog"), pair, ProcessLostError),
        (closed, one, RuntimeError),
        (RuntimeError("shapes do not match"), pair, RuntimeError),
    ):
        with pytest.raises(kind), naming_lost_processes(accelerator):
            raise error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({}, 1e-5),
        ({"preset": "streaming", "window": 2}, 1e-5),
        ({**EVERYTHING, "checkpoint_every": 2, "steps": 9}, 1e-5),
        ({"buckets": "3x32x32,4x32x48", "flip": 0.5, "caption_drop": 0.3}, 1e-5),
        # of half a loss more gradients underflow: not the processes' doing
        ({"precision": "fp16", "preset": "paper", "noise": "shared"}, 1e-4),
    ],
    ids=["whole", "windows", "validation, average, debiased", "buckets, shared cache", "fp16, paper"],
)
def test_two_processes_equal_one_with_twice_the_batches(quick, tmp_path, changes, difference):
    settings = {**quick, **changes}
    if "buckets" in changes:
        settings = with_clips_of_two_shapes(settings, tmp_path)
    one = alone(settings, tmp_path / "one")
    (said,) = ended(process := start(settings, tmp_path / "two", tmp_path, TORCHRUN))
    assert process.returncode == 0, said
    assert losses(tmp_path / "two") == pytest.approx(one.losses, rel=difference)
    validations = read_log(tmp_path / "two" / "validation_losses.csv", Validation)
    assert dict(validations) == pytest.approx(one.validation_losses, rel=difference)
    assert (tmp_path / "two" / "adapter.safetensors").is_file()


@pytest.mark.slow
def test_every_preset_trains_in_two_processes(quick, tmp_path):
    presets = ("recurrent", "paper", "published", "tune-a-video", "first-frame")
    settings = {**quick, "steps": 3, "eval_draws": 0}
    (said,) = ended(
        process := start(settings, tmp_path / "two", tmp_path, TORCHRUN, PRESETS=" ".join(presets))
    )
    assert process.returncode == 0, said
    for preset in presets:
        one = alone(settings, tmp_path / "one" / preset, preset=preset)
        assert losses(tmp_path / "two" / preset) == pytest.approx(one.losses, rel=1e-5), preset


@pytest.mark.slow
def test_accelerate_starts_two_processes_by_the_configuration_for_cpus(quick, tmp_path):
    one = alone(quick, tmp_path / "one")
    (said,) = ended(process := start(quick, tmp_path / "two", tmp_path, accelerate("cpu.yaml")))
    assert process.returncode == 0, said
    assert losses(tmp_path / "two") == pytest.approx(one.losses, rel=1e-5)


@pytest.mark.slow
def test_accelerate_starts_two_machines_by_their_configuration(quick, tmp_path):
    """Both are this one, and CPUs stand for its GPUs."""
    one, port = alone(quick, tmp_path / "one"), str(free_port())
    options = ["--main_process_ip", "127.0.0.1", "--main_process_port", port]
    machines = [
        start(
            *(quick, tmp_path / "two", tmp_path),
            accelerate("two-machines.yaml", *options, "--machine_rank", rank),
            ACCELERATE_USE_CPU="true",
        )
        for rank in ("0", "1")
    ]
    said = ended(*machines)
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert losses(tmp_path / "two") == pytest.approx(one.losses, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dying", ["1", "0"])
def test_a_process_that_dies_ends_the_others_with_a_clear_error(quick, tmp_path, dying):
    """Without a launcher, which would end the other one for us."""
    settings = {**quick, "checkpoint_every": 3}
    port, output = str(free_port()), tmp_path / "two"
    pair = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        start(settings, output, tmp_path, [], dying, RANK=rank, LOCAL_RANK=rank, **pair)
        for rank in ("0", "1")
    ]
    said = ended(*processes)
    gone, other = int(dying), 1 - int(dying)
    assert processes[gone].returncode == -signal.SIGKILL
    assert processes[other].returncode == 1, said[other]
    assert "ProcessLostError" in said[other] and "another process of this run has ended" in said[other]
    reached = newest_checkpoint(output / "checkpoints").name
    if dying == "1":  # the first process keeps what both did
        assert f"All steps up to 4 are kept in {output / 'checkpoints' / reached}" in said[0]
    assert reached == ("step-000004" if dying == "1" else "step-000003")

    whole = alone(settings, tmp_path / "whole")
    resumed = alone(settings, output)
    assert resumed.losses == pytest.approx(whole.losses, rel=1e-5)
