"""Networks that were fitted on one table continue on another: weights, codes and moments."""

import hashlib
import pickle

import joblib
import keras
import numpy as np
import pandas as pd
import pytest
from _fresh import run
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack._training import train as training
from skstack.networks import MLP

SMALL = {"epochs": 2, "random_state": 0, "early_stopping": False}
# Nothing is learned, so that the network is unchanged.
IN_PLACE = {"epochs": 1, "learning_rate": 1e-30, "early_stopping": False}


def table(n, jobs, seed):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "age": rng.normal(40, 10, n),
            "job": pd.Categorical(rng.choice(jobs, n)),
            "amount": rng.lognormal(8, 1, n),
        }
    )
    return X, np.where((X["age"] > 40) ^ X["job"].isin(["cook", "vet"]), "yes", "no")


XA, YA = table(400, ["cook", "king", "smith", "vet"], 0)
XB, YB = table(200, ["cook", "smith", "zookeeper"], 1)


@pytest.fixture(scope="module")
def fitted():
    return KerasClassifier(MLP((8,)), epochs=5, learning_rate=0.01).fit(XA, YA)


@pytest.fixture
def starts(monkeypatch):
    """What each training of a network starts from, with its blueprint."""
    found, train = [], training.train

    def spy(blueprint, start, *args, **kwargs):
        found.append((blueprint, {name: np.array(value) for name, value in start.items()}))
        return train(blueprint, start, *args, **kwargs)

    monkeypatch.setattr(training, "train", spy)
    return found


@pytest.fixture
def banks(shared_data):
    """Calls of two campaigns: columns in common, categories of their own."""
    both = [shared_data("bank_full"), shared_data("bank_additional_full")]
    columns = [name for name in both[0] if name in both[1] and name not in ("y", "duration")]
    samples = [frame.sample(n, random_state=0) for frame, n in zip(both, (1500, 500), strict=True)]
    return [(frame[columns].reset_index(drop=True), frame["y"].to_numpy()) for frame in samples]


def stack_on(first, **settings):
    return StackedKerasClassifier(
        [("a", first)],
        downstream=KerasClassifier(MLP((4,)), **SMALL),
        cv=2,
        random_state=0,
        **settings,
    )


@pytest.mark.slow
def test_every_fold_starts_from_the_first_tables_weights_bit_for_bit(banks, starts):
    (X_a, y_a), (X_b, y_b) = banks
    a = KerasClassifier(MLP((8,)), **SMALL).fit(X_a, y_a)
    before = pickle.dumps(a)
    del starts[:], X_a, y_a
    continued = KerasClassifier(FrozenEstimator(a), **SMALL)
    scores = cross_val_score(stack_on(continued), X_b, y_b, cv=2, scoring="roc_auc")
    assert np.isfinite(scores).all()
    own = [start for blueprint, start in starts if blueprint is a.network_.blueprint]
    assert len(own) == 2 * (1 + 2)  # refitted and of each fold, in both outer folds
    for start in own:
        assert start.keys() == a.network_.variables.keys()
        for name, value in a.network_.variables.items():
            np.testing.assert_array_equal(start[name], value)
    assert pickle.dumps(a) == before


@pytest.mark.parametrize("frozen", [False, True], ids=["continued", "frozen"])
def test_every_fold_continues_a_saved_network(frozen, banks, starts, tmp_path):
    (X_a, y_a), (X_b, y_b) = [(X.select_dtypes("number"), y) for X, y in banks]
    path = str(tmp_path / "a.keras")
    KerasClassifier(MLP((8,)), **SMALL).fit(X_a, y_a).model_.save(path)
    digest = hashlib.sha256((tmp_path / "a.keras").read_bytes()).hexdigest()
    del starts[:]
    first = KerasFeatureTransformer(path) if frozen else KerasClassifier(path, **SMALL)
    assert np.isfinite(cross_val_score(stack_on(first), X_b, y_b, cv=2)).all()
    weights = [np.asarray(value) for value in keras.models.load_model(path).get_weights()]
    own = [start for blueprint, start in starts if blueprint.continued]
    assert len(own) == (0 if frozen else 6)
    for start in own:
        found = [value for name, value in start.items() if "seed" not in name]
        for value, expected in zip(found, weights, strict=True):
            np.testing.assert_array_equal(value, expected)
    assert hashlib.sha256((tmp_path / "a.keras").read_bytes()).hexdigest() == digest


FRESH = """
import sys, joblib
from sklearn.model_selection import cross_val_predict
stack, X, y, expected = joblib.load(sys.argv[1])
found = cross_val_predict(stack, X, y, cv=2, method="predict_proba")
print("same bits", (found == expected).all())
"""


@pytest.mark.slow
@pytest.mark.xla
def test_a_fresh_process_continues_equally(banks, tmp_path):
    from sklearn.model_selection import cross_val_predict

    (X_a, y_a), (X_b, y_b) = banks
    a = KerasClassifier(MLP((8,)), **SMALL).fit(X_a, y_a)
    stack = stack_on(KerasClassifier(FrozenEstimator(a), **SMALL))
    expected = cross_val_predict(stack, X_b, y_b, cv=2, method="predict_proba")
    joblib.dump((stack, X_b, y_b, expected), tmp_path / "all.joblib")
    assert "same bits True" in run(FRESH, tmp_path / "all.joblib")


def test_categories_codes_and_moments_are_those_of_the_first_table(fitted):
    continued = KerasClassifier(FrozenEstimator(fitted), **IN_PLACE).fit(XB, YB)
    assert continued.blocks_.categories_ == {"job": ["cook", "king", "smith", "vet"]}
    np.testing.assert_array_equal(continued.predict_proba(XB), fitted.predict_proba(XB))
    assert continued.input_profile_.n_rows == len(XB)


def test_the_network_continues_to_learn(fitted):
    continued = KerasClassifier(FrozenEstimator(fitted), epochs=5, learning_rate=0.01)
    assert continued.fit(XB, YB).score(XB, YB) > fitted.score(XB, YB)
    assert fitted.random_state is None


def test_a_regressor_continues_in_the_units_of_its_first_fit():
    X, y = XA.to_numpy()[:, [0, 2]].astype(float), 1e4 + 1e3 * XA["age"].to_numpy()
    a = KerasRegressor(MLP((8,)), **SMALL).fit(X, y)
    continued = KerasRegressor(FrozenEstimator(a), **IN_PLACE).fit(X[:50], y[:50] / 2)
    np.testing.assert_array_equal(continued.predict(X), a.predict(X))
    with pytest.raises(ValueError, match="loss='poisson' needs unscaled targets"):
        continued.set_params(loss="poisson").fit(X, y)


def test_an_autoencoder_continues_in_the_units_of_its_first_fit():
    a = KerasAutoencoder(**SMALL).fit(XA)
    continued = KerasAutoencoder(FrozenEstimator(a), **IN_PLACE).fit(XB)
    np.testing.assert_array_equal(continued.reconstruction_error(XB), a.reconstruction_error(XB))
    np.testing.assert_array_equal(continued.transform(XB), a.transform(XB))


def test_it_works_in_clones_grids_and_pipelines(fitted):
    frozen = FrozenEstimator(fitted)
    once = KerasClassifier(**SMALL).set_params(model=frozen)
    assert clone(clone(make_pipeline(once)))[-1].model.estimator is fitted
    grid = {"model": [frozen, MLP((2,))]}
    search = GridSearchCV(once, grid, cv=2).fit(XB, YB)
    assert search.best_estimator_.model is frozen
    copied = pickle.loads(pickle.dumps(once))
    np.testing.assert_array_equal(
        copied.fit(XB, YB).predict_proba(XB), once.fit(XB, YB).predict_proba(XB)
    )
    stack = stack_on(KerasClassifier(**SMALL)).set_params(a__model=frozen).fit(XB, YB)
    assert stack.named_upstream_["a"].estimator_.blocks_ is fitted.blocks_


def test_partial_fit_and_warm_start_continue_from_the_first_fit_once(fitted):
    continued = KerasClassifier(FrozenEstimator(fitted), **IN_PLACE, warm_start=True)
    continued.partial_fit(XB, YB)
    np.testing.assert_array_equal(continued.predict_proba(XB), fitted.predict_proba(XB))
    continued.set_params(learning_rate=0.1).fit(XB, YB)
    moved = continued.predict_proba(XB)
    assert not np.array_equal(moved, fitted.predict_proba(XB))
    continued.set_params(learning_rate=1e-30).fit(XB, YB)
    np.testing.assert_allclose(continued.predict_proba(XB), moved, atol=1e-6)


def test_its_layers_are_features_if_classes_differ(fitted):
    three = np.array(["low", "middle", "high"])[np.digitize(XB["age"], [35, 45])]
    layer = [each.name for each in fitted.model_.layers if "dense" in type(each).__name__.lower()]
    extract = KerasFeatureTransformer(FrozenEstimator(fitted), layers=layer[0])
    scores = cross_val_score(stack_on(extract), XB, three, cv=2)
    assert np.isfinite(scores).all()
    with pytest.raises(ValueError, match=r"2 classes, but y has 3 classes.*layers=\.\.\."):
        KerasClassifier(FrozenEstimator(fitted), **SMALL).fit(XB, three)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (XB[["job", "age", "amount"]], YB, r"columns \['job', 'age'\] where .* \['age', 'job'\]"),
        (XB[["age", "job"]], YB, "X has 2 features, but .* fitted on 3"),
        (XB, np.where(YB == "yes", "no", "aye"), r"for 'yes' would become that for 'no'"),
    ],
    ids=["order", "width", "labels"],
)
def test_incompatible_rows_are_refused(X, y, message, fitted):
    with pytest.raises(ValueError, match=message):
        KerasClassifier(FrozenEstimator(fitted), **SMALL).fit(X, y)
    with pytest.raises(ValueError, match=message):
        stack_on(KerasClassifier(FrozenEstimator(fitted), **SMALL)).fit(X, y)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda a: a, TypeError, r"is an estimator\. .* FrozenEstimator\(KerasClassifier"),
        (lambda a: FrozenEstimator(clone(a)), NotFittedError, "is not fitted"),
        (lambda a: FrozenEstimator(LogisticRegression()), TypeError, "must hold a fitted Keras"),
        (
            lambda a: FrozenEstimator(make_pipeline(StandardScaler(), a)),
            TypeError,
            "Freeze the steps separately",
        ),
    ],
    ids=["bare", "unfitted", "foreign", "Pipeline"],
)
def test_other_frozen_estimators_are_refused(make, error, message, fitted):
    with pytest.raises(error, match=message):
        KerasClassifier(make(fitted), **SMALL).fit(XB, YB)


def test_other_tasks_and_other_categorical_features_are_refused(fitted):
    with pytest.raises(ValueError, match=r"2 classes, but y has 1 outputs \(regression\)"):
        KerasRegressor(FrozenEstimator(fitted), **SMALL).fit(XB, XB["age"])
    one = KerasClassifier(FrozenEstimator(fitted), categorical_features=["job"], **SMALL)
    with pytest.raises(ValueError, match=r"categorical_features=.*was fitted with"):
        one.fit(XB, YB)


@pytest.mark.parametrize("saved", [False, True])
def test_a_model_with_other_category_codes_is_refused(saved, fitted, tmp_path):
    model = fitted.model_
    if saved:
        model.save(tmp_path / "a.keras")
        model = str(tmp_path / "a.keras")
    for user in (KerasClassifier(model, **IN_PLACE), KerasFeatureTransformer(model)):
        with pytest.raises(ValueError, match=r"fitted on other categories.*FrozenEstimator"):
            user.fit(XB, YB)
    same = KerasClassifier(model, **IN_PLACE).fit(XA, YA)
    np.testing.assert_allclose(same.predict_proba(XA), fitted.predict_proba(XA), atol=1e-6)
    assert same.model_.name == fitted.model_.name
    features = KerasFeatureTransformer(model).fit_transform(XA)
    np.testing.assert_allclose(features[:, 0], fitted.predict_proba(XA)[:, 1], atol=1e-6)


def test_memory_distinguishes_networks_fitted_on_other_rows(tmp_path):
    found = []
    for rows in (slice(0, 200), slice(200, 400)):
        a = KerasClassifier(MLP((4,)), **SMALL).fit(XA[rows], YA[rows])
        continued = KerasClassifier(FrozenEstimator(a), epochs=1, random_state=0)
        transformer = KerasFeatureTransformer(continued, cv=2, random_state=0, memory=str(tmp_path))
        found.append(transformer.fit_transform(XB, YB))
    assert not np.array_equal(*found)


def test_columns_without_any_known_category_warn_once(fitted):
    stack = stack_on(KerasClassifier(FrozenEstimator(fitted), **SMALL))
    with pytest.warns(UserWarning, match=r"\['job'\] of X hold no category .*'cook'") as caught:
        stack.fit(XB.assign(job="COOK"), YB)
    assert len(caught) == 1


def test_rows_on_another_scale_warn_once(fitted):
    scaled = XB.assign(age=(XB["age"] - 40) / 10, amount=(XB["amount"] - 5e3) / 6e3)
    with pytest.warns(UserWarning, match=r"another scale .*'age'.*'amount'") as caught:
        stack_on(KerasClassifier(FrozenEstimator(fitted), **SMALL)).fit(scaled, YB)
    assert len(caught) == 1
