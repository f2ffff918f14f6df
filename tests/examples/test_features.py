"""What one network gives to another, in short."""

import pytest

pytestmark = pytest.mark.slow


def test_a_pretrained_autoencoder_gives_its_layer_and_its_error(run, tmp_path):
    printed = run("examples/pretrained_autoencoder.py", "--plot", "errors.png", cwd=tmp_path)
    for model in ("pixels", "pixels + encoder_output", "reconstruction error", "chance"):
        assert f"\n{model} " in printed
    assert "What encoder_output adds: " in printed
    assert (tmp_path / "errors.png").stat().st_size > 5_000


def test_predictions_of_one_table_join_another(run, tmp_path):
    printed = run("examples/predictions_as_features.py", cwd=tmp_path)
    for model in ("the call alone", "the call + predictions", "both tables, one network"):
        assert f"\n{model} " in printed
    for feature in ("proba_1", "log_odds_1", "entropy", "margin"):
        assert f"client__{feature} " in printed
    assert list(tmp_path.iterdir()) == []  # pictures are drawn where somebody asks for one
