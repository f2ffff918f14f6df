"""Lines of progress: which are printed, labelled and whole."""

import re
import sys

import pytest
from _models import FIT, SMALL, binary
from sklearn.linear_model import LogisticRegression

from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier

X, Y = binary()


def lines_of(capsys, estimator):
    estimator.fit(X, Y)
    return capsys.readouterr().out.splitlines()


def stack(verbose, inner=0, blend=False):
    network = KerasClassifier(SMALL, verbose=inner, **FIT)
    branches = [("a", network), ("b", LogisticRegression())]
    settings = {"cv": 3 if blend else 2, "n_jobs": 2, "random_state": 0, "verbose": verbose}
    return StackedKerasClassifier(
        branches, downstream=LogisticRegression(), blend=blend, **settings
    )


def test_a_stack_prints_each_fit_with_branch_and_fold(capsys):
    fits = [re.sub(r"[\d.]+ s$", "", line) for line in lines_of(capsys, stack(1))]
    expected = ["[downstream] fitted on 60 rows in "]
    for name in ("a", "b"):
        expected += [
            f"[branch '{name}', all rows] fitted on 60 rows in ",
            f"[branch '{name}', fold 1 of 2] fitted on 30 rows in ",
            f"[branch '{name}', fold 2 of 2] fitted on 30 rows in ",
        ]
    assert sorted(fits) == sorted(expected)
    assert not lines_of(capsys, stack(0))


def test_fits_without_folds_are_labelled(capsys):
    own = stack(1, blend=True)
    own.upstream.append(("c", KerasFeatureTransformer(LogisticRegression(), cv=2)))
    labels = {line.partition(" fitted")[0] for line in lines_of(capsys, own)}
    assert {f"[branch 'a', without folds {pair} of 3]" for pair in ("1 and 2", "2 and 3")} <= labels
    assert {f"[downstream, without fold {k} of 3]" for k in (1, 2, 3)} <= labels
    assert "[branch 'c', without fold 1 of 3, fold 2 of 2]" in labels


@pytest.mark.parametrize("verbose", [0, 1])
def test_epochs_of_a_network_in_a_stack_are_labelled(capsys, verbose):
    epochs = [line for line in lines_of(capsys, stack(verbose, inner=1)) if "Epoch" in line]
    labels = [line.partition("] ")[0] for line in epochs if "Epoch 2/2" in line]
    folds = [f"[branch 'a', {part}" for part in ("all rows", "fold 1 of 2", "fold 2 of 2")]
    assert sorted(labels) == folds


def test_a_transformer_prints_its_fits_and_a_network_has_no_label(capsys):
    network = KerasClassifier(SMALL, **FIT)
    transformer = KerasFeatureTransformer(network, cv=2, verbose=1)
    transformer.fit_transform(X, Y)
    starts = [line.partition(" fitted")[0] for line in capsys.readouterr().out.splitlines()]
    assert starts == ["[all rows]", "[fold 1 of 2]", "[fold 2 of 2]"]
    assert lines_of(capsys, network.set_params(verbose=1))[0].startswith("Epoch 1/2 - loss")


def test_each_line_is_one_write(monkeypatch):
    written = []
    monkeypatch.setattr(sys.stdout, "write", written.append)
    stack(1, inner=1).fit(X, Y)
    monkeypatch.undo()
    assert len(written) > 10
    assert all(text.endswith("\n") and text.count("\n") == 1 for text in written)
