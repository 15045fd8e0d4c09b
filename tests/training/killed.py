"""A run that is killed with SIGKILL again and again, at random moments, and then let finish.

    python -m tests.training.killed SETTINGS.yaml KILLS

Its process stays and forks the runs, so that only the first one waits for the imports. After every kill it checks
that nothing in the run's folder is broken, and prints the step that the newest checkpoint is of.
"""

import os
import random
import signal
import sys
import time
import traceback

import yaml

from rcv.training import FinetuneConfig, finetune, read_adapter
from rcv.training.checkpoint import broken, list_checkpoints, load_checkpoint, newest_checkpoint
from rcv.training.log import Evaluation, Record, Validation, read_log

STEPS_AHEAD = 5
LONGEST = 0.1  # seconds: about what a step with its checkpoint takes


def fork_run(config):
    """Return the process id of a run."""
    pid = os.fork()
    if pid:
        return pid
    try:
        finetune(config, show_progress=False)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def kill_once(config, moment):
    """Kill a run some steps after its first, in the middle of whatever it does then; False if it ended before."""
    losses, pid = config.output / "losses.csv", fork_run(config)
    rows = losses.read_bytes().count(b"\n") if losses.exists() else 0
    target = rows + moment.randrange(STEPS_AHEAD)
    deadline = time.monotonic() + 120
    while (losses.read_bytes().count(b"\n") if losses.exists() else 0) < target:
        if os.waitpid(pid, os.WNOHANG)[0] or time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    time.sleep(moment.uniform(0, LONGEST))
    if os.waitpid(pid, os.WNOHANG)[0]:
        return False
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def check_folder(output):
    """Raise if a file under its own name is broken; return the newest checkpoint's step."""
    folder = output / "checkpoints"
    for path in list_checkpoints(folder):
        assert not broken(path), broken(path)
    for name, kind in (
        ("losses.csv", Record),
        ("eval_losses.csv", Evaluation),
        ("validation_losses.csv", Validation),
    ):
        steps = [row.step for row in read_log(output / name, kind)]
        assert steps == sorted(set(steps)), (name, steps)
    if (output / "config.yaml").exists():
        assert yaml.safe_load((output / "config.yaml").read_text())["seed"] == 0
    if (output / "adapter.safetensors").exists():
        read_adapter(output)
    newest = newest_checkpoint(folder)
    return 0 if newest is None else load_checkpoint(newest).step


def main(settings, kills):
    config, moment = FinetuneConfig.read_yaml(settings), random.Random(0)
    for number in range(kills):
        if not kill_once(config, moment):
            sys.exit(f"kill {number}: the run had ended by itself")
        print(check_folder(config.output), flush=True)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(fork_run(config), 0)[1]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
