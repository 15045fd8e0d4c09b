"""The report of `rcv doctor`."""

import io
import json

from rich.console import Console

from rcv import doctor
from rcv.ops import backend
from rcv.ops.registry import OPERATIONS


def test_report_names_a_backend_and_the_reasons_of_the_others_for_every_operation():
    report = doctor.report()
    on_cpu = [choice for choice in report.operations if choice.device == "cpu"]
    assert {choice.operation for choice in on_cpu} == set(OPERATIONS)
    for choice in on_cpu:
        assert choice.backend == "torch"
        assert set(choice.why_not) == {"triton", "cuda"}
        assert all(choice.why_not.values())
    assert report.versions["torch"]
    assert report.devices[0].memory_gib > 0
    assert report.devices[0].units > 0


def test_report_says_when_the_backend_asked_for_cannot_run():
    with backend("cuda"):
        report = doctor.report()
    assert report.requested == "cuda"
    assert {choice.backend for choice in report.operations if choice.device == "cpu"} == {None}


def test_json_is_the_whole_report():
    report = doctor.report()
    content = json.loads(doctor.to_json(report))
    assert content["versions"] == report.versions
    assert len(content["operations"]) == len(report.operations)


def test_tables_fit_a_terminal_and_name_everything():
    console = Console(file=io.StringIO(), width=100)
    doctor.render(doctor.report(), console)
    text = console.file.getvalue()
    for name in (*OPERATIONS, "torch", "diffusers", "triton", "cpu"):
        assert name in text
    assert max(map(len, text.splitlines())) <= 100
