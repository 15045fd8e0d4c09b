"""The acceptance suite on a CPU: end to end, and what it does when candidates or the device fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import cases, gpu_suite, operations_part, training_part
from benchmarks.cases import Case
from benchmarks.devices import Device, device_name
from benchmarks.peers import Candidate
from benchmarks.results import Results, Row, load, markdown, shortfalls
from rcv.kernels import scan
from rcv.kernels.launch import recording
from rcv.ops import reference

CASE = Case("gated_scan", 3, 5, 2, 4, "float32")
FLOPS = {"float32": 1e9, "float16": 1e9, "bfloat16": 1e9}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A device of known rates, a few cases, and few calls of each."""
    device = Device("CPU", "measured", FLOPS, bytes=1e9, exponentials=1e9)
    monkeypatch.setattr(gpu_suite, "device_of", lambda _: device)
    monkeypatch.setattr(operations_part, "cache_bytes", lambda _: 1 << 12)
    monkeypatch.setitem(operations_part.SECONDS_PER_CASE, "cpu", 0.0)
    monkeypatch.setattr(cases, "odd", lambda dtypes: [Case(**{**vars(CASE), "dtype": d}) for d in dtypes])
    attention = Case("frame_attention", 3, 5, 2, 8, "float32", table="first_memory")
    monkeypatch.setattr(cases, "quick", lambda dtype: [attention, CASE])
    monkeypatch.setattr(training_part, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(training_part, "TIMED_STEPS", 2)
    monkeypatch.setattr(
        training_part, "steps", lambda *_: [training_part.Step("recurrent", 2, config="tiny")]
    )


@pytest.fixture
def suite(tmp_path):
    results = Results("measured on CPU", {"name": "CPU"}, {}, None)
    return gpu_suite.Suite(torch.device("cpu"), tmp_path, 100, results)


def _with(monkeypatch, **functions):
    """Let an operation have these candidates alone."""
    found = [
        Candidate(name.replace("_", ":"), "gated_scan", lambda case, function=function: function)
        for name, function in functions.items()
    ]
    monkeypatch.setattr(operations_part, "candidates", lambda operation: found)


def _wrong(a, x):
    h, last = reference.gated_scan(a, x)
    return h * 1.01, last


def test_end_to_end(tmp_path):
    gpu_suite.main(["--device", "cpu", "--out", str(tmp_path), "--budget-s", "100"])
    results = load(tmp_path)
    data = json.loads((tmp_path / "results.json").read_text())
    assert data["label"] == "measured on " + device_name(torch.device("cpu"))
    assert data["versions"]["torch"] == torch.__version__
    assert {row.operation for row in results.rows} == {"gated_scan", "frame_attention", "training_step"}
    checked = [row for row in results.rows if row.status == "passed"]
    assert [(row.candidate, row.dtype) for row in checked] == [
        ("rcv:torch", "float32"),
        ("rcv:torch", "bfloat16"),
    ]
    timed = [row for row in results.rows if row.status == "timed" and row.operation != "training_step"]
    names = {row.candidate for row in timed if row.operation == "frame_attention"}
    assert names >= {"reference", "concat+sdpa:math", "concat+sdpa:flash", "lse-merge:cpu"}
    for row in timed:
        assert row.q1_s <= row.median_s <= row.q3_s
        assert row.share == pytest.approx(row.bound_s / row.median_s)
        assert row.error_ratio <= 1
        assert row.direction in ("forward", "backward")
    refused = {row.candidate: row.reason for row in results.rows if row.status == "refused"}
    assert "CUDA graphs need a CUDA device" in refused["cuda-graph(reference)"]
    assert not results.left_out
    assert any("part memory was not run" in note for note in results.notes)
    text = (tmp_path / "results.md").read_text()
    assert "## frame_attention, backward" in text and "| lse-merge:cpu |" in text


def test_without_time_everything_is_named_as_left_out(tmp_path):
    gpu_suite.main(["--device", "cpu", "--out", str(tmp_path), "--budget-s", "0", "--parts", "check,ops"])
    results = load(tmp_path)
    assert not results.rows
    assert results.left_out[0] == "check: gated_scan-B1-F3-N5-H2-D4-float32"
    assert len(results.left_out) == 4
    assert results.left_out[-1] in (tmp_path / "results.md").read_text()


def test_a_gpu_is_first_checked_for_what_the_interpreter_cannot_test(monkeypatch):
    monkeypatch.setattr(training_part, "why_not", lambda device, memory=False: ["not asked for"])
    names = [item.name for item in gpu_suite.items_of(["check", "ops"], "quick", torch.device("cuda"))]
    assert [name.split("-")[:2] for name in names[:2]] == [
        ["check: recurrent_scan", "tanh"],
        ["check: recurrent_scan", "relu"],
    ]
    for case in cases.all_frames():
        x = torch.empty(case.videos, case.frames, case.tokens, case.channels, device="meta")
        weight = torch.empty(case.channels, case.channels, device="meta")
        for capability in scan.WALK_TOKENS:
            with recording(capability) as recorder:
                h = scan.recurrent_forward(x, weight, None, case.activation)
                scan.recurrent_backward(h, weight, h, None, case.activation)
            kernels = [launch.kernel.__name__ for launch in recorder.launches]
            assert kernels == ["recurrent_scan_fwd_kernel", "recurrent_scan_bwd_kernel"]


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="opps is none of check, ops, steps, memory"):
        gpu_suite.main(["--device", "cpu", "--out", str(tmp_path), "--parts", "opps"])


def test_runs_as_a_script_from_anywhere(tmp_path):
    script = Path(gpu_suite.__file__)
    command = [
        sys.executable,
        str(script),
        "--device",
        "cpu",
        "--budget-s",
        "0",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "out").left_out


def test_what_is_wrong_is_never_timed(monkeypatch, suite):
    _with(monkeypatch, rcv_wrong=_wrong, right=reference.gated_scan)
    operations_part.measure(CASE, suite)
    found = {(row.candidate, row.status) for row in suite.results.rows}
    assert found == {("rcv:wrong", "failed"), ("right", "timed")}
    (line,) = shortfalls(suite.results)
    assert line.startswith("rcv:wrong failed gated_scan") and "output 0: error" in line


def test_exceptions_are_recorded_and_the_others_timed(monkeypatch, suite):
    calls = []

    def raising(error):
        def run(a, x):
            raise error

        return run

    def late(a, x):
        calls.append(None)
        if len(calls) > 3:
            raise ValueError("the fourth call")
        return reference.gated_scan(a, x)

    _with(
        monkeypatch,
        memory=raising(torch.OutOfMemoryError("out of memory")),
        none=raising(RuntimeError("No available kernel. Aborting execution.")),
        late=late,
        right=reference.gated_scan,
    )
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("emptied"))
    operations_part.measure(CASE, suite)
    assert "emptied" in calls
    rows = {row.candidate: row for row in suite.results.rows}
    assert (rows["memory"].status, rows["memory"].reason) == ("failed", "OutOfMemoryError: out of memory")
    assert rows["none"].status == "refused"
    assert (rows["late"].status, rows["late"].reason) == ("failed", "ValueError: the fourth call")
    assert rows["right"].status == "timed" and rows["right"].median_s > 0


def test_results_that_differ_between_calls_fail_the_check(monkeypatch, suite):
    calls = []

    def drifting(a, x):
        calls.append(None)
        h, last = reference.gated_scan(a, x)
        return h, last * (1 + 1e-7 * len(calls))

    _with(monkeypatch, rcv_drifting=drifting, not_ours=_wrong)
    operations_part.check(CASE, suite)
    (row,) = suite.results.rows
    assert (row.status, row.reason) == ("failed", "two calls differ in their bits")


def test_a_lost_device_ends_the_process_and_the_next_goes_on(monkeypatch, suite):
    def killing(a, x):
        monkeypatch.setattr(suite, "is_alive", lambda: False)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    _with(monkeypatch, rcv_killing=killing, right=reference.gated_scan)
    items = gpu_suite.items_of(["ops"], "quick", torch.device("cpu"))[1:]
    with pytest.raises(operations_part.DeviceLost):
        suite.run(items)
    recorded = load(suite.folder)
    (row,) = recorded.rows
    assert row.status == "failed" and row.reason.startswith("lost the device: RuntimeError: CUDA error")
    assert not recorded.done

    resumed = gpu_suite.Suite(torch.device("cpu"), suite.folder, 100, recorded, resumed=True)
    resumed.run(items)
    assert {(r.candidate, r.status) for r in recorded.rows} == {("rcv:killing", "failed"), ("right", "timed")}
    assert recorded.done == [items[0].name]


def test_the_process_that_lost_its_device_is_replaced_by_one_that_resumes(monkeypatch, tmp_path):
    started = []

    def lose(suite, items):
        suite.results.save(suite.folder)
        raise operations_part.DeviceLost("gone")

    monkeypatch.setattr(gpu_suite.Suite, "run", lose)
    monkeypatch.setattr("os.execv", lambda program, command: started.append((program, command)))
    options = ["--device", "cpu", "--out", str(tmp_path), "--parts", "check", "--shapes", "quick"]
    gpu_suite.main([*options, "--budget-s", "50"])
    ((program, command),) = started
    assert program == command[0] == sys.executable
    assert Path(command[1]) == Path(gpu_suite.__file__)
    again = gpu_suite._parser().parse_args(command[2:])
    assert again.resume and 0 < again.budget_s < 50
    assert (again.out, again.parts, again.device, again.shapes) == (str(tmp_path), "check", "cpu", "quick")


def test_a_candidate_that_lost_the_device_twice_is_not_tried_again(monkeypatch, suite):
    lost = [
        Row("gated_scan", 1, n, "float32", "both", "killing", "failed", reason="lost the device: x")
        for n in (1, 2)
    ]
    suite.results.rows += lost
    _with(monkeypatch, killing=_wrong)
    operations_part.measure(CASE, suite)
    assert suite.results.rows[-1].reason == "it lost the device 2 times in this run"


def test_work_that_breaks_off_is_noted_and_the_rest_done(suite):
    def broken(suite):
        raise ValueError("no reference")

    done = []
    items = [gpu_suite.Item("ops", "ops: one", broken), gpu_suite.Item("ops", "ops: two", done.append)]
    suite.run(items)
    assert done == [suite]
    assert suite.results.notes == ["ops: one broke off: ValueError: no reference"]


@pytest.mark.parametrize("way", ["auto", "published"])
def test_a_tiny_training_step(suite, way):
    training_part.measure_step(training_part.Step("tune-a-video", 2, True, way, config="tiny"), suite)
    (row,) = suite.results.rows
    assert row.status == "timed", row.reason
    assert row.median_s > 0 and row.peak_bytes is None
    assert row.candidate == ("rcv:auto" if way == "auto" else way) + " tune-a-video checkpointing"


def _timed(candidate, median, q1=None, q3=None, **values):
    row = {"operation": "gated_scan", "frames": 3, "tokens": 5, "dtype": "float16", "direction": "forward"}
    quartiles = {"median_s": median, "q1_s": q1 or median, "q3_s": q3 or median}
    return Row(**{**row, "candidate": candidate, "status": "timed", **quartiles, **values})


def test_shortfalls_compare_the_fastest_of_both_sides():
    def lines(*rows):
        return shortfalls(Results("", {}, {}, None, list(rows)))

    slow, fast, rival = _timed("rcv:torch", 5.0), _timed("rcv:triton", 1.0), _timed("nn.RNN", 2.0)
    assert lines(slow, fast, rival) == []
    assert lines(fast, _timed("nn.RNN", 0.98)) == []  # within the noise that the target allows
    (line,) = lines(slow, rival)
    assert line.endswith("rcv:torch 5e+03 ms, nn.RNN 2e+03 ms (0.40x)")
    assert lines(_timed("rcv:torch", 5.0, q1=1.5), rival) == []  # quartiles overlap
    assert lines(slow, _timed("nn.RNN", 2.0, tokens=6)) == []  # another case


@pytest.mark.parametrize(
    ("peaks", "said"),
    [((14, 20), None), ((16, 20), "16.00 GiB at least, at most 15.30"), ((), "came to its end")],
)
def test_shortfalls_of_memory(peaks, said):
    step = {"operation": "training_step", "frames": 32, "direction": "step"}
    rows = [_timed(f"preset {n}", 1.0, peak_bytes=n << 30, **step) for n in peaks]
    rows = rows or [
        Row("training_step", 32, 5, "float16", "step", "recurrent", "failed", reason="out of memory")
    ]
    lines = shortfalls(Results("", {"capability": "9.0"}, {}, None, rows))
    assert [said in line for line in lines] == ([True] if said else [])


def test_saved_results_load_as_they_were(tmp_path):
    rows = [Row.of(CASE, "forward", "rcv:torch", "timed", median_s=1.0, q1_s=0.5, q3_s=2.0, error_ratio=0.1)]
    results = Results(
        "measured on X", {"name": "X"}, {"torch": "2"}, "abc", rows, ["ops: y"], ["a note"], ["z"]
    )
    results.save(tmp_path)
    assert load(tmp_path) == results
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.md"]
    assert "* a note" in markdown(results)


def test_what_is_not_a_number_is_saved_as_null(tmp_path):
    row = Row.of(CASE, "both", "rcv:torch", "failed", error_ratio=float("nan"))
    Results("", {}, {}, None, [row]).save(tmp_path)
    assert load(tmp_path).rows[0].error_ratio is None


def test_inputs_rotate_through_more_than_twice_the_cache():
    size = sum(t.nbytes for t in cases.inputs_of(CASE, "cpu"))
    sets = cases.rotating_inputs(CASE, "cpu", cache_bytes=2 * size)
    assert len(sets) == 4
    assert not torch.equal(sets[0][0], sets[1][0])
    assert len(cases.rotating_inputs(CASE, "cpu", cache_bytes=size // 4)) == 1
    assert len(cases.rotating_inputs(CASE, "cpu", cache_bytes=1 << 40)) == 16


def test_full_shapes_are_stable_diffusions():
    full = cases.full()
    assert {(c.tokens, c.head_dim) for c in full} >= {
        (4096, 40),
        (2560, 40),
        (640, 80),
        (40, 160),
        (4096, 64),
    }
    assert {c.frames for c in full} == {8, 16, 32, 64, 128}
    assert {c.channels for c in full} == {320, 640, 1280}
    assert len({c.label for c in full}) == len(full)
    assert full[0] == Case("frame_attention", 32, 4096, 8, 40, "float16", table="first_memory")


def test_shortfalls_know_what_a_target_is_about():
    def lines(*rows, cuda=True):
        return shortfalls(Results("", {"capability": "9.0"} if cuda else {}, {}, None, list(rows)))

    scan = {"operation": "recurrent_scan", "tokens": 4096, "heads": 8, "head_dim": 40, "dtype": "float16"}
    own, graph = _timed("rcv:triton", 1.0, **scan), _timed("cuda-graph(reference)", 1.1, **scan)
    (line,) = lines(own, graph)
    assert "in a CUDA graph (1.3x asked)" in line and "(1.10x)" in line
    assert lines(own, graph, cuda=False) == []
    wider = {**scan, "head_dim": 80}  # another C
    assert lines(_timed("rcv:triton", 1.0, **wider), _timed("cuda-graph(reference)", 1.1, **wider)) == []
    gated = {**scan, "operation": "gated_scan"}
    (line,) = lines(_timed("rcv:triton", 1.0, share=0.5, **gated))
    assert "0.50 of the bound" in line
    assert lines(_timed("rcv:triton", 1.0, share=0.9, **gated)) == []


def test_rivals_that_a_compiler_makes_can_be_left_out(monkeypatch, tmp_path, suite):
    started = []
    compiled = Candidate("compiled", "gated_scan", started.append, compiles=True)
    monkeypatch.setattr(operations_part, "candidates", lambda operation: [compiled])
    plain = gpu_suite.Suite(suite.device, tmp_path, 100, suite.results, compiling=False)
    operations_part.measure(CASE, plain)
    (row,) = suite.results.rows
    assert (row.status, row.reason) == ("refused", "rivals that a compiler makes were left out")
    assert not started
