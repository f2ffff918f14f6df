"""Networks that learn together, in short."""

import re

import pytest

pytestmark = pytest.mark.slow


def test_a_teacher_helps_where_labels_are_few(run, tmp_path):
    printed = run("examples/learn_from_a_teacher.py", cwd=tmp_path)
    gains = {
        name: float(re.search(rf"\n{name} +\S+ +\S+ +(-?\d\.\d+)", printed)[1])
        for name in ("alone", "distill", "features", "blend", "head")
    }
    assert gains.pop("alone") == 0.0
    assert min(gains.values()) > 0.0


def test_a_stack_is_tuned_as_one_network(run, tmp_path):
    printed = run("examples/fine_tune_a_stack.py", cwd=tmp_path)
    for way in ("in stages", "tuned"):
        assert f"\npredictions, {way} " in printed
        assert f"\ninner layers, {way} " in printed
    assert re.search(r"inner layers, tuned .* [012] of 2\n", printed)
    assert "\none network on all columns " in printed
