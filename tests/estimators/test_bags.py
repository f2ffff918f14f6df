"""Several networks in one estimator, whose predictions are averaged."""

import warnings

import keras
import numpy as np
import pytest
from joblib import parallel_config
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.model_selection import TimeSeriesSplit, cross_val_predict

import skstack
from skstack import (
    FineTune,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasMultiTask,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack._estimators import bags as module
from skstack._training import program
from skstack.losses import TeacherLoss
from tests._models import FIT, SMALL, binary, mixed, regression

X, y = binary()
SETTINGS = {**FIT, "early_stopping": True, "validation_fraction": 0.2, "n_bags": 3}


def bagged(kind=KerasClassifier, **settings):
    return kind(SMALL, **{**SETTINGS, **settings})


@pytest.fixture(scope="module")
def fitted():
    return bagged().fit(X, y)


@pytest.fixture
def splits(monkeypatch):
    """The (training rows, hold-out rows) of each bag."""
    seen = []
    original = module.bag_splits
    monkeypatch.setattr(
        "skstack._estimators.base.bag_splits",
        lambda *args, **kwargs: seen.append(original(*args, **kwargs)) or seen[-1],
    )
    return seen


def test_predictions_are_means_of_networks_with_starts_of_their_own(fitted):
    single = [bag.predict_proba(X) for bag in fitted.bags_]
    np.testing.assert_allclose(fitted.predict_proba(X), np.mean(single, axis=0))
    assert not np.allclose(single[0], single[1])
    np.testing.assert_array_equal(
        fitted.predict(X), fitted.classes_[fitted.predict_proba(X).argmax(axis=1)]
    )
    assert not hasattr(fitted, "network_")


def test_each_attribute_of_training_is_a_list(fitted):
    assert fitted.n_iter_ == [2, 2, 2]
    assert fitted.early_stopped_ == [True] * 3
    for name in ("loss_curve_", "validation_scores_", "history_"):
        assert getattr(fitted, name) == [getattr(bag, name) for bag in fitted.bags_]
        assert len(getattr(fitted, name)) == 3


def test_hold_out_rows_are_disjoint_so_that_all_rows_teach(splits):
    bagged(n_bags=5).fit(X, y)
    (found,) = splits
    held_out = np.concatenate([rest for _, rest in found])
    assert sorted(held_out) == list(range(60))
    for train, rest in found:
        assert sorted([*train, *rest]) == list(range(60))
        assert np.bincount(y[rest]).tolist() == [6, 6]
    bagged(n_bags=7).fit(X, y)  # from the sixth on, rows are held out a second time
    assert [len(rest) for _, rest in splits[1]] == [12] * 7


@pytest.mark.parametrize(
    ("early_stopping", "several"), [("auto", False), ("auto", True), (True, True)]
)
def test_the_bag_that_holds_out_what_is_left_trains_on_each_class(early_stopping, several):
    X, rare = np.zeros((60, 2)), np.arange(60) < 1
    labels = np.arange(60) % 2
    y = np.column_stack([labels, rare]).astype(int) if several else np.where(rare, 2, labels)
    for seed in range(5):
        bags = bagged(early_stopping=early_stopping, n_bags=5, validation_fraction=0.2)
        bags._read_target(y, shared=None, reset=True)
        for train, held_out in module.bag_splits(bags, X, y, seed, groups=None, ordered=False):
            assert rare[train].any()
            assert sorted([*train, *held_out]) == list(range(60))


def test_hold_out_rows_are_whole_groups_or_the_last_rows(splits):
    groups = np.arange(60) // 3
    bagged(n_bags=2).fit(X, y, groups=groups)
    (found,) = splits
    for train, rest in found:
        assert not set(groups[train]) & set(groups[rest])
    assert not set(found[0][1]) & set(found[1][1])
    splits.clear()
    many, labels = np.vstack([X] * 4), np.tile(y, 4)
    stack = StackedKerasClassifier(
        [("a", bagged(n_bags=2))], downstream=KerasClassifier(SMALL, **FIT), cv=TimeSeriesSplit(2)
    )
    with pytest.warns(UserWarning, match="never predicts"):
        stack.fit(many, labels)
    for found in splits:
        for train, rest in found:
            assert train.max() < rest.min()


def test_bags_hold_out_no_rows_where_one_network_holds_out_none():
    """Else rows of one group, or earlier ones, would be monitored."""
    for n_bags in (1, 2):
        fit = KerasClassifier(SMALL, learning_rate=0.05, n_bags=n_bags, random_state=0)
        fit.fit(X, y, groups=np.zeros(60))
        assert np.ravel(fit.early_stopped_).tolist() == [False] * n_bags
        late = np.repeat([0, 1], [55, 5])  # the last rows hold a class that others lack
        fit._fit_in_context(X, late, None, ordered=True)
        assert np.ravel(fit.early_stopped_).tolist() == [False] * n_bags


def test_errors_of_threads_name_the_bag_and_what_it_is_a_part_of():
    part = KerasFeatureTransformer(bagged(KerasRegressor, learning_rate=1e30, optimizer="sgd"))
    with (
        parallel_config(n_jobs=2),
        pytest.raises(ValueError, match=r"model, all rows: bag \d of 3"),
    ):
        part.fit(1e10 * X, 1e10 * y)


def test_bags_and_folds_share_one_program(monkeypatch):
    made = []
    original = program.Program.__init__
    monkeypatch.setattr(
        program.Program, "__init__", lambda self, *a, **k: made.append(original(self, *a, **k))
    )
    model = bagged(metrics=["mae"])  # a program that no other test has
    cross_val_predict(model, X, y, cv=3)
    assert len(made) == 1


def test_threads_give_the_same_bits(fitted):
    with parallel_config(n_jobs=2):
        threads = bagged().fit(X, y)
    np.testing.assert_array_equal(threads.predict_proba(X), fitted.predict_proba(X))


def test_rows_of_weight_0_are_left_out(fitted):
    weights = np.ones(70)
    weights[60:] = 0
    more = np.vstack([X, 9 * X[:10]])
    weighted = bagged().fit(more, np.append(y, y[:10]), sample_weight=weights)
    np.testing.assert_array_equal(weighted.predict_proba(X), fitted.predict_proba(X))


def test_X_val_is_monitored_by_all(splits):
    fit = bagged().fit(X, y, X_val=X[:20], y_val=y[:20])
    assert fit.early_stopped_ == [True] * 3
    assert not splits


def test_numbers_are_averaged_in_the_units_of_y():
    X, y = regression(2)
    fit = bagged(KerasRegressor).fit(X, 100 * y + 7)
    single = [bag.predict(X) for bag in fit.bags_]
    np.testing.assert_allclose(fit.predict(X), np.mean(single, axis=0))
    assert not np.array_equal(fit.bags_[0].target_mean_, fit.bags_[1].target_mean_)
    np.testing.assert_allclose(fit.model_(X), fit.predict(X), rtol=1e-5)
    np.testing.assert_allclose(fit.to_keras()(X), fit.predict(X), rtol=1e-5)


def test_models_files_and_copies_are_of_the_mean(fitted, tmp_path):
    p = fitted.predict_proba(X)
    inputs = X.astype(np.float32)
    np.testing.assert_allclose(np.ravel(fitted.model_(inputs)), p[:, 1], atol=1e-6)
    model = fitted.to_keras()
    np.testing.assert_allclose(model(inputs), p, atol=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(inputs), p, atol=1e-6)
    skstack.save(fitted, tmp_path / "bags.skstack")
    loaded = skstack.load(tmp_path / "bags.skstack")
    np.testing.assert_array_equal(loaded.predict_proba(X), p)
    assert loaded.n_iter_ == fitted.n_iter_
    assert len(clone(fitted).fit(X, y).bags_) == 3


def test_mixed_columns_and_imputed_values():
    X, y = mixed(gap=True)
    fit = bagged(imputer=SimpleImputer()).fit(X, y)
    values = {float(bag.blocks_.part("numeric").imputer_.statistics_[1]) for bag in fit.bags_}
    assert len(values) > 1  # each from its own training rows
    model = fit.to_keras()
    np.testing.assert_allclose(model(fit.keras_inputs(X)), fit.predict_proba(X), atol=1e-5)
    with pytest.raises(ValueError, match="to_keras"):
        _ = fit.model_


def test_several_targets_of_different_kinds():
    X, y = binary(frame=True)
    targets = X[["a"]].assign(label=y)
    fit = bagged(KerasMultiTask).fit(X[["b", "c", "d"]], targets)
    predicted = fit.predict(X[["b", "c", "d"]])
    singles = [bag.predict(X[["b", "c", "d"]])["a"] for bag in fit.bags_]
    np.testing.assert_allclose(predicted["a"], np.mean(singles, axis=0))
    outputs = fit.to_keras()(fit.keras_inputs(X[["b", "c", "d"]]))
    np.testing.assert_allclose(np.ravel(outputs["a"]), predicted["a"], atol=1e-4)


def test_branches_and_downstream_of_a_stack():
    stack = StackedKerasClassifier(
        KerasFeatureTransformer(bagged(n_bags=2), features=["outputs", "log_odds"]),
        downstream=bagged(n_bags=2, early_stopping="auto"),
        cv=2,
    ).fit(X, y)
    assert len(stack.downstream_.bags_) == 2
    np.testing.assert_allclose(
        stack.to_keras()(X.astype(np.float32)),
        stack.predict_proba(X),
        atol=1e-5,
    )


def test_the_epochs_of_a_downstream_with_bags_are_those_of_folds():
    settings = {"epochs": "auto", "early_stopping": "auto", "learning_rate": 0.05}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stack = StackedKerasClassifier(
            [("a", bagged(n_bags=2))], downstream=bagged(n_bags=2, **settings), cv=2
        ).fit(X, y)
    downstream = stack.downstream_
    assert downstream.n_iter_ == [downstream.epochs] * 2
    assert downstream.early_stopped_ == [False] * 2


def test_what_needs_one_network_is_refused(fitted):
    for estimator, what in (
        (bagged(warm_start=True), "warm_start"),
        (KerasFeatureTransformer(bagged(), layers="hidden_1"), "layers"),
        (KerasFeatureTransformer(FrozenEstimator(fitted), layers="hidden_1"), "layers"),
        (KerasClassifier(FrozenEstimator(fitted)), "n_bags=3"),
        (StackedKerasClassifier([("a", bagged())], fine_tune=FineTune()), "fine_tune"),
        (
            StackedKerasClassifier(
                [("a", KerasClassifier(SMALL))], downstream=bagged(), fine_tune=FineTune()
            ),
            "fine_tune",
        ),
        (KerasClassifier(SMALL, loss=TeacherLoss(fitted, mode="features")), "n_bags=3"),
        (bagged(n_bags=0), "n_bags"),
    ):
        with pytest.raises(ValueError, match=what):
            estimator.fit(X, y)
    with pytest.raises(ValueError, match="partial_fit needs one network"):
        bagged().partial_fit(X, y)
    with pytest.raises(NotFittedError):
        bagged().predict(X)


def test_one_network_after_several_and_the_other_way_round():
    model = bagged(n_bags=2).fit(X, y)
    one = model.set_params(n_bags=1).fit(X, y)
    assert one.n_iter_ == 2
    assert not hasattr(one, "bags_")
    two = one.set_params(n_bags=2).fit(X, y)
    assert len(two.bags_) == 2
    assert not hasattr(two, "network_")


def test_errors_name_the_bag():
    broken = y.astype(float)
    with pytest.raises(ValueError, match="bag 1 of 2"):
        bagged(KerasRegressor, n_bags=2, learning_rate=1e30, optimizer="sgd").fit(
            1e10 * X, 1e10 * broken
        )
