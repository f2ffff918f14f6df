"""The scripts that a newcomer runs first, in short."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(script, *options, cwd):
    command = [sys.executable, str(ROOT / script), "--quick", *options]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo_compares_draws_and_ships(tmp_path):
    printed = run("examples/bank_marketing.py", "--output", "out", cwd=tmp_path)
    assert "predictions bit-equal: True" in printed
    for model in ("stack of networks", "one network", "gradient boosting", "logistic regression"):
        assert f"\n{model} " in printed
    assert (tmp_path / "out" / "bank_marketing.png").stat().st_size > 10_000


def test_a_pretrained_autoencoder_gives_its_layer_and_its_error(tmp_path):
    printed = run("examples/pretrained_autoencoder.py", "--plot", "errors.png", cwd=tmp_path)
    for model in ("pixels", "pixels + encoder_output", "reconstruction error", "chance"):
        assert f"\n{model} " in printed
    assert "What encoder_output adds: " in printed
    assert (tmp_path / "errors.png").stat().st_size > 5_000


def test_predictions_of_one_table_join_another(tmp_path):
    printed = run("examples/predictions_as_features.py", cwd=tmp_path)
    for model in ("the call alone", "the call + predictions", "both tables, one network"):
        assert f"\n{model} " in printed
    for feature in ("proba_1", "log_odds_1", "entropy", "margin"):
        assert f"client__{feature} " in printed
    assert list(tmp_path.iterdir()) == []  # pictures are drawn where somebody asks for one


def test_voices_of_unequal_length_are_told_apart(tmp_path):
    printed = run("examples/voices.py", "--plot", "voices.png", cwd=tmp_path)
    for model in ("gru", "lstm", "conv1d", "averages", "conv1d upstream", "conv1d downstream"):
        assert f"\n{model} " in printed
    assert "conv1d upstream: " in printed.split("Against conv1d alone")[1]
    assert (tmp_path / "voices.png").stat().st_size > 10_000


def test_states_and_maps_are_pooled_and_flattened(tmp_path):
    printed = run("examples/states_and_maps.py", "--plot", "scores.png", cwd=tmp_path)
    assert "zero in all of these: True" in printed
    assert "the mean over real steps alone: True" in printed
    for columns in (348, 32, 928, 64, 24, 384):  # raw steps, pooled, flattened; the same of maps
        assert f" {columns} columns " in printed
    assert (tmp_path / "scores.png").stat().st_size > 10_000


def test_several_networks_feed_several_inputs(tmp_path):
    printed = run("examples/several_inputs.py", "--plot", "cheques.png", cwd=tmp_path)
    inputs = "{'image': (None, 128), 'text': (None, 64), 'numeric': (None, 1)}"
    assert f"inputs of the last network: {inputs}" in printed
    assert "equal features (300, 16): True" in printed
    assert "by an input for each, calls: " in printed.split("What is gained")[1]
    assert (tmp_path / "cheques.png").stat().st_size > 10_000


def test_what_each_branch_brings_is_told_and_drawn(tmp_path):
    printed = run("examples/does_it_help.py", "--plot", "gains.png", cwd=tmp_path)
    for variant in ("downstream alone", "with client", "with odd", "all"):
        assert f" {variant} " in printed or f"\n{variant} " in printed
    for change in ("All branches together change", "client by itself changes", "odd by itself"):
        assert f"\n{change} " in printed
    assert "noise on these 2 folds" in printed
    assert (tmp_path / "gains.png").stat().st_size > 5_000


def test_a_shipped_stack_says_the_same_in_every_runtime(tmp_path):
    printed = run("examples/ship_a_stack.py", "--output", "out", cwd=tmp_path)
    for runtime in ("keras", "saved_model", "onnxruntime"):
        assert f"\n{runtime} " in printed
    written = {each.name for each in (tmp_path / "out").iterdir()}
    assert written == {"stack.keras", "saved_model", "stack.onnx"}


def test_a_network_from_another_table_beats_starting_anew(tmp_path):
    printed = run("examples/network_from_another_table.py", cwd=tmp_path)
    assert "2 of 632 (0.3%) exactly" in printed
    assert "stack on A's frozen network" in printed
    continued = re.search(r"continued on B +(0\.\d+)", printed)
    scratch = re.search(r"from scratch +(0\.\d+)", printed)
    assert float(continued[1]) > float(scratch[1]) + 0.05


def test_a_teacher_helps_where_labels_are_few(tmp_path):
    printed = run("examples/learn_from_a_teacher.py", cwd=tmp_path)
    gains = {
        name: float(re.search(rf"\n{name} +\S+ +\S+ +(-?\d\.\d+)", printed)[1])
        for name in ("alone", "distill", "features", "blend", "head")
    }
    assert gains.pop("alone") == 0.0
    assert min(gains.values()) > 0.0


def test_the_fit_benchmark_reports_as_json(tmp_path):
    run("benchmarks/run.py", "--only", "fit-569x30", "--output", "found", cwd=tmp_path)
    result = json.loads((tmp_path / "found" / "fit-569x30.json").read_text(encoding="utf-8"))
    assert result["scenario"] == "fit-569x30"
    assert {"skstack", "bare XLA loop", "MLPClassifier", "scikeras"} < set(result["contestants"])
    assert all(len(entry["seconds"]) == 2 for entry in result["contestants"].values())
    assert min(result["training_accuracy"].values()) > 0.9


def test_a_stack_is_tuned_as_one_network(tmp_path):
    printed = run("examples/fine_tune_a_stack.py", cwd=tmp_path)
    for way in ("in stages", "tuned"):
        assert f"\npredictions, {way} " in printed
        assert f"\ninner layers, {way} " in printed
    assert re.search(r"inner layers, tuned .* [012] of 2\n", printed)
    assert "\none network on all columns " in printed
