"""A stack in other runtimes, and a network from another table, in short."""

import re

import pytest

pytestmark = pytest.mark.slow


def test_an_exported_stack_predicts_the_same_in_every_runtime(run, tmp_path):
    printed = run("examples/ship_a_stack.py", "--output", "out", cwd=tmp_path)
    for runtime in ("keras", "saved_model", "onnxruntime"):
        assert f"\n{runtime} " in printed
    written = {each.name for each in (tmp_path / "out").iterdir()}
    assert written == {"stack.keras", "saved_model", "stack.onnx"}


def test_a_pretrained_network_beats_a_new_one(run, tmp_path):
    printed = run("examples/network_from_another_table.py", cwd=tmp_path)
    assert "2 of 632 (0.3%) exactly" in printed
    assert "stack on A's frozen network" in printed
    continued = re.search(r"continued on B +(0\.\d+)", printed)
    scratch = re.search(r"from scratch +(0\.\d+)", printed)
    assert float(continued[1]) > float(scratch[1]) + 0.05
