"""Several processes draw and learn what one does."""

import subprocess
import sys

import pytest

from rcv.training import FinetuneConfig, finetune
from rcv.training.log import Record, read_log

PROGRAM = """
import sys
from rcv.training import FinetuneConfig, finetune
finetune(FinetuneConfig.read_yaml(sys.argv[1]), show_progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("windows", [{}, {"preset": "streaming", "window": 2}], ids=["whole", "windows"])
def test_two_processes_equal_one_with_twice_the_batch(quick, tmp_path, windows):
    quick = {**quick, **windows}
    alone = finetune(FinetuneConfig(**quick, batch_size=2, output=tmp_path / "one"), show_progress=False)
    (tmp_path / "program.py").write_text(PROGRAM)
    FinetuneConfig(**quick, output=tmp_path / "two").write_yaml(tmp_path / "settings.yaml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "program.py"), str(tmp_path / "settings.yaml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    losses = [record.loss for record in read_log(tmp_path / "two" / "losses.csv", Record)]
    assert losses == pytest.approx(alone.losses, rel=1e-4)
    assert (tmp_path / "two" / "adapter.safetensors").is_file()
