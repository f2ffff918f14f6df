"""Sequences, images and several inputs, in short."""

import pytest

pytestmark = pytest.mark.slow


def test_voices_of_different_length_are_classified(run, tmp_path):
    printed = run("examples/voices.py", "--plot", "voices.png", cwd=tmp_path)
    for model in ("gru", "lstm", "conv1d", "averages", "conv1d upstream", "conv1d downstream"):
        assert f"\n{model} " in printed
    assert "conv1d upstream: " in printed.split("Against conv1d alone")[1]
    assert (tmp_path / "voices.png").stat().st_size > 10_000


def test_states_and_maps_are_pooled_and_flattened(run, tmp_path):
    printed = run("examples/states_and_maps.py", "--plot", "scores.png", cwd=tmp_path)
    assert "states of padding are zero: True" in printed
    assert "the mean over real steps alone: True" in printed
    for columns in (348, 32, 928, 64, 24, 384):  # raw steps, pooled, flattened; the same of maps
        assert f" {columns} columns " in printed
    assert (tmp_path / "scores.png").stat().st_size > 10_000
