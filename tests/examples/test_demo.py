"""The demo, and one scenario of the benchmarks, in short."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_the_demo_compares_plots_and_exports(run, tmp_path):
    printed = run("examples/bank_marketing.py", "--output", "out", cwd=tmp_path, fresh=True)
    assert "predictions bit-equal: True" in printed
    for model in ("stack", "one network", "gradient boosting", "logistic regression"):
        assert f"\n{model} " in printed
    assert (tmp_path / "out" / "bank_marketing.png").stat().st_size > 10_000


def test_the_fit_benchmark_reports_as_json(run, tmp_path):
    run("benchmarks/run.py", "--only", "fit-569x30", "--output", "found", cwd=tmp_path, fresh=True)
    result = json.loads((tmp_path / "found" / "fit-569x30.json").read_text(encoding="utf-8"))
    assert result["scenario"] == "fit-569x30"
    assert {"skstack", "bare XLA loop", "MLPClassifier", "scikeras"} < set(result["contestants"])
    assert all(len(entry["seconds"]) == 2 for entry in result["contestants"].values())
    assert min(result["training_accuracy"].values()) > 0.9
