"""Several inputs, and what each branch brings, in short."""

import pytest

pytestmark = pytest.mark.slow


def test_several_networks_feed_several_inputs(run, tmp_path):
    printed = run("examples/several_inputs.py", "--plot", "cheques.png", cwd=tmp_path)
    inputs = "{'image': (None, 128), 'text': (None, 64), 'numeric': (None, 1)}"
    assert f"inputs of the last network: {inputs}" in printed
    assert "equal features (300, 16): True" in printed
    assert "by separate inputs, calls: " in printed.split("What is gained")[1]
    assert (tmp_path / "cheques.png").stat().st_size > 10_000


def test_the_gain_of_each_branch_is_printed_and_plotted(run, tmp_path):
    printed = run("examples/does_it_help.py", "--plot", "gains.png", cwd=tmp_path)
    for variant in ("downstream alone", "with client", "with anomaly", "all"):
        assert f" {variant} " in printed or f"\n{variant} " in printed
    for change in ("All branches together change", "client by itself changes", "anomaly by itself"):
        assert f"\n{change} " in printed
    assert "noise on these 2 folds" in printed
    assert (tmp_path / "gains.png").stat().st_size > 5_000
