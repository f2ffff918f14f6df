"""``KerasMultiTask``: targets of different kinds in one network."""

import pickle

import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
import tensorflow as tf
from _models import FIT, SMALL, binary
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skstack
from skstack import (
    KerasClassifier,
    KerasFeatureTransformer,
    KerasMultiTask,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack._features.cross_fit import UpstreamSpec
from skstack._training.multi_task import JoinedLoss
from skstack._training.program import POOL
from skstack.losses import TeacherLoss
from skstack.networks import TabM

X, _ = binary(frame=True)
Y = pd.DataFrame(
    {
        "churn": np.where(X["a"] > 0, "yes", "no"),
        "amount": 50 * X["b"] + 1000,
        "segment": pd.Categorical(
            np.where(X["c"] > 2.4, "high", np.where(X["c"] > 1.6, "middle", "low")),
            categories=["low", "middle", "high", "unused"],
            ordered=True,
        ),
    }
)
# One batch is one step: rows in any order give the same sums.
WHOLE = {**FIT, "batch_size": 64}


def network(**parameters):
    return KerasMultiTask(**{"model": SMALL, **WHOLE, **parameters})


@pytest.fixture(scope="module")
def fitted():
    return network().fit(X, Y)


def test_every_target_is_learned():
    learned = network(epochs=200, learning_rate=0.02).fit(X, Y)
    predicted = learned.predict(X)
    assert accuracy_score(Y["churn"], predicted["churn"]) > 0.9
    assert accuracy_score(Y["segment"], predicted["segment"]) > 0.8
    assert r2_score(Y["amount"], predicted["amount"]) > 0.9


# Targets and predictions ---------------------------------------------------------------------


def test_kinds_and_labels_follow_the_columns():
    y = pd.DataFrame(
        {
            "words": np.where(X["a"] > 0, "yes", "no"),
            "bools": X["b"] > 1,
            "bytes": np.digitize(X["c"], [1.5, 2.5]).astype("int8"),
            "nullable": pd.array(np.digitize(X["d"], [2.5, 3.5]) + 10, dtype="Int64"),
            "ordered": Y["segment"],
            "objects": pd.Series(np.where(X["a"] > 0, 2, 1), dtype=object),
            "float32": X["a"].astype("float32"),
            7: X["b"],
        }
    )
    learned = network().fit(X.set_axis(X.index + 5), y)
    assert set(learned.tasks_) == set(y)
    numbers = [name for name, kind in learned.tasks_.items() if kind == "regression"]
    assert numbers == ["float32", 7] == list(learned.target_mean_)
    assert {name: len(classes) for name, classes in learned.classes_.items()} == {
        "words": 2, "bools": 2, "bytes": 3, "nullable": 3, "ordered": 3, "objects": 2,
    }  # fmt: skip
    rows = X[:7].set_axis(list("tuvwxyz"))
    predicted = learned.predict(rows)
    assert predicted.index.equals(rows.index)
    assert predicted.dtypes.to_dict() == {**y.dtypes.to_dict(), "float32": np.float64}
    for name, classes in learned.classes_.items():
        assert predicted[name].isin(classes.tolist()).all()
        assert y[name].isin(classes.tolist()).all()


def test_probabilities_are_those_of_the_predicted_classes(fitted):
    p, predicted = fitted.predict_proba(X), fitted.predict(X)
    assert {name: values.shape for name, values in p.items()} == {
        "churn": (60, 2), "segment": (60, 3),
    }  # fmt: skip
    for name, values in p.items():
        np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-6)
        likeliest = fitted.classes_[name][values.argmax(axis=1)]
        assert likeliest.tolist() == predicted[name].tolist()


def test_arrays_need_tasks_and_give_numbered_columns():
    y = np.column_stack([np.arange(60) % 3, X["b"]])
    listed = network(tasks=["classification", "regression"]).fit(X, y)
    by_index = network(tasks={0: "classification", 1: "regression"}).fit(X.to_numpy(), y)
    predicted = listed.predict(X).reset_index(drop=True)
    assert predicted.columns.tolist() == [0, 1]
    assert set(predicted[0]) <= {0.0, 1.0, 2.0}
    pd.testing.assert_frame_equal(predicted, by_index.predict(X.to_numpy()))
    assert listed.score(X, y) == by_index.score(X.to_numpy(), y)


def test_tasks_overrule_dtypes():
    y = pd.DataFrame({"count": (X["a"] > 0).astype(int), "grade": (X["b"] > 1) * 0.5})
    learned = network(tasks={"count": "regression", "grade": "classification"}).fit(X, y)
    assert learned.predict(X).dtypes.tolist() == [np.float64, np.float64]
    assert learned.classes_["grade"].tolist() == [0.0, 0.5]
    assert list(learned.target_mean_) == ["count"]


def test_many_integers_are_learned_as_classes_with_a_warning():
    y = pd.DataFrame({"amount": np.arange(60) * 10, "churn": Y["churn"]})
    with pytest.warns(UserWarning, match=r"y\['amount'\] holds integers.*tasks="):
        network(epochs=1).fit(X, y)


def test_probabilities_need_classes():
    numbers = network().fit(X, Y[["amount"]])
    assert not hasattr(numbers, "predict_proba")
    assert numbers.score(X, Y[["amount"]]) == r2_score(Y["amount"], numbers.predict(X)["amount"])
    assert hasattr(network(), "predict_proba")


def test_the_score_is_the_mean_over_targets(fitted):
    weights, predicted = np.arange(60.0), fitted.predict(X)
    for given in (None, weights):
        scores = [
            accuracy_score(Y["churn"], predicted["churn"], sample_weight=given),
            r2_score(Y["amount"], predicted["amount"], sample_weight=given),
            accuracy_score(Y["segment"].astype(str), predicted["segment"], sample_weight=given),
        ]
        np.testing.assert_allclose(fitted.score(X, Y, given), np.mean(scores))
    unknown = Y.assign(churn="perhaps")
    np.testing.assert_allclose(
        fitted.score(X, unknown), fitted.score(X, Y) - accuracy_score(*map(
            list, (Y["churn"], predicted["churn"]))) / 3
    )  # fmt: skip


# Losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [{}, {"amount": 0.25, "segment": 3.0}])
def test_the_loss_is_the_weighted_sum_over_targets(weights):
    """Of a network that does not move: its first loss is that of its predictions."""
    still = network(learning_rate=1e-12, epochs=1, loss_weights=weights).fit(X, Y)
    p, predicted = still.predict_proba(X), still.predict(X)
    losses = {
        "churn": log_loss(Y["churn"], p["churn"]),
        "amount": mean_squared_error(Y["amount"], predicted["amount"]) / np.var(Y["amount"]),
        "segment": log_loss(Y["segment"].astype(str), p["segment"]),
    }
    expected = sum(weights.get(name, 1.0) * loss for name, loss in losses.items())
    np.testing.assert_allclose(still.loss_curve_, [expected], rtol=1e-5)


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_it_learns_what_a_network_of_keras_with_two_outputs_learns(engine):
    """From the same weights, on batches of all rows."""
    y = Y[["segment", "amount"]]
    start = network(learning_rate=1e-12, epochs=1).fit(X, y)
    moved = KerasMultiTask(
        FrozenEstimator(start), loss_weights={"amount": 0.5}, engine=engine, **WHOLE
    )
    moved.set_params(epochs=5, learning_rate=0.01, optimizer="sgd").fit(X, y)

    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(4, "relu", name="hidden_1")(inputs)
    segment = keras.layers.Dense(3, "softmax", name="output_segment")(hidden)
    amount = keras.layers.Dense(1, name="output_amount")(hidden)
    model = keras.Model(inputs, [segment, amount])
    for layer in ("hidden_1", "output_segment", "output_amount"):
        model.get_layer(layer).set_weights(start.model_.get_layer(layer).get_weights())
    model.compile(
        keras.optimizers.SGD(0.01),
        loss=["sparse_categorical_crossentropy", "mean_squared_error"],
        loss_weights=[1.0, 0.5],
        run_eagerly=True,
    )
    standard = StandardScaler().fit_transform(X)
    scale = StandardScaler().fit(Y[["amount"]])
    codes = y["segment"].map({"high": 0, "low": 1, "middle": 2}).to_numpy()
    targets = [codes.astype("float32"), scale.transform(Y[["amount"]])]
    model.fit(standard, targets, epochs=5, batch_size=64, shuffle=False, verbose=0)
    p, numbers = map(np.asarray, model(standard))
    np.testing.assert_allclose(moved.predict_proba(X)["segment"], p, atol=1e-5)
    np.testing.assert_allclose(scale.transform(moved.predict(X)[["amount"]]), numbers, atol=1e-5)


def test_losses_by_target_decide_the_heads():
    y = pd.DataFrame({"count": np.digitize(X["b"], [0, 1, 2]) * 1.0, "churn": Y["churn"]})
    loss = {"count": "poisson", "churn": "categorical_crossentropy"}
    learned = network(loss=loss).fit(X, y)
    # Positive numbers, unscaled, that start at the mean.
    assert (learned.target_mean_["count"], learned.target_scale_["count"]) == (0, 1)
    predicted = learned.predict(X)["count"]
    assert predicted.min() > 0
    np.testing.assert_allclose(predicted.mean(), y["count"].mean(), rtol=0.1)
    # One unit for each of two classes.
    assert learned.model_.output_shape == (None, 3)
    assert learned.predict_proba(X)["churn"].shape == (60, 2)
    features = KerasFeatureTransformer(FrozenEstimator(learned)).fit(X)
    assert features.get_feature_names_out().tolist() == ["prediction__count", "proba_yes__churn"]


def test_counts_start_at_the_mean_in_networks_with_members():
    y = pd.DataFrame({"count": np.arange(60) % 5 + 400.0})
    model = TabM(hidden_layer_sizes=(4,), n_members=2, numeric_embedding=None)
    settings = {"epochs": 1, "learning_rate": 1e-6, "random_state": 0}
    learned = KerasMultiTask(model, loss={"count": "poisson"}, **settings).fit(X, y)
    alone = KerasRegressor(model, loss="poisson", **settings).fit(X, y["count"])
    for predicted in (learned.predict(X)["count"], alone.predict(X)):
        np.testing.assert_allclose(predicted, y["count"].mean(), rtol=1e-3)


def test_cross_entropy_is_that_of_the_logits():
    """A probability that float32 rounds to 0 has a finite loss, which a clipped one has not."""
    x = keras.Input((3,))
    heads = [
        keras.layers.Activation("softmax")(x),
        keras.layers.Activation("sigmoid")(x[:, :1]),
    ]
    model = keras.Model(x, keras.layers.Concatenate()(heads))
    loss = JoinedLoss(
        ["sparse_categorical_crossentropy", "binary_crossentropy"], [(), (1,)], [3, 1]
    )
    logits, targets = tf.constant([[200.0, 0.0, 0.0]]), tf.constant([[1.0, 1.0, 1.0, 0.0]])
    np.testing.assert_allclose(tf.function(lambda x: loss(targets, model(x)))(logits), 400.0)


def test_metrics_are_recorded_by_target():
    metrics = {"churn": ["accuracy"], "amount": ["mae", "r2_score"]}
    history = network(metrics=metrics, epochs=1, learning_rate=1e-12).fit(X, Y)
    found = {name: values[0] for name, values in history.history_.items()}
    assert set(found) == {"loss", "churn_accuracy", "amount_mae", "amount_r2_score"}
    predicted = history.predict(X)
    np.testing.assert_allclose(
        [found["churn_accuracy"], found["amount_r2_score"]],
        [
            accuracy_score(Y["churn"], predicted["churn"]),
            r2_score(Y["amount"], predicted["amount"]),
        ],
        rtol=1e-4,
    )


# Rows ----------------------------------------------------------------------------------------


def test_weighting_a_row_is_repeating_it():
    weights = np.random.default_rng(0).integers(0, 2, 60) * 2
    rows = np.repeat(np.arange(60), weights)[:60]
    weights = np.bincount(rows, minlength=60)
    weighted = network(epochs=10).fit(X, Y, sample_weight=weights)
    repeated = network(epochs=10).fit(X.iloc[rows], Y.iloc[rows])
    np.testing.assert_allclose(
        weighted.predict(X)["amount"], repeated.predict(X)["amount"], rtol=1e-5
    )
    np.testing.assert_allclose(
        weighted.predict_proba(X)["segment"], repeated.predict_proba(X)["segment"], atol=1e-5
    )


def test_early_stopping_monitors_the_sum_over_targets():
    stopped = network(early_stopping=True, learning_rate=1e-12, n_iter_no_change=1, epochs=9)
    stopped.fit(X, Y)
    assert stopped.n_iter_ < 9
    watched = network(epochs=1, learning_rate=1e-12).fit(X[:40], Y[:40], X_val=X[40:], y_val=Y[40:])
    p = watched.predict_proba(X[40:])
    losses = [log_loss(Y[name].astype(str)[40:], p[name], labels=watched.classes_[name])
              for name in p]  # fmt: skip
    amount = watched.predict(X[40:])["amount"]
    losses.append(mean_squared_error(Y["amount"][40:], amount) / np.var(Y["amount"][:40]))
    np.testing.assert_allclose(watched.validation_scores_, [-sum(losses)], rtol=1e-5)


def test_early_stopping_costs_no_class():
    rare = [0, 10, 20, 30]
    y = Y.assign(churn=np.where(np.isin(np.arange(60), rare), "yes", "no"))
    several = np.column_stack([y["churn"] == "yes", X["a"] > 0]).astype(int)
    for seed in range(8):
        settings = {"epochs": "auto", "random_state": seed}
        multi = network(**settings)
        multi._read_target(y, shared=None, reset=True)
        codes = multi._read_target(y, shared=None, reset=False)
        labels = KerasClassifier(SMALL, **settings)
        for estimator, targets in ((multi, codes), (labels, several)):
            train, held_out = estimator._held_out_rows(X, targets, seed, groups=None, ordered=False)
            assert set(rare) <= set(train)
            assert len(held_out) == 9


def test_early_stopping_with_groups_costs_no_class():
    groups = np.repeat(np.arange(6), 10)
    y = Y.assign(churn=np.where(np.arange(60) < 8, "yes", "no"))  # in one group
    several = np.column_stack([y["churn"] == "yes", X["a"] > 0]).astype(int)
    for seed in range(8):
        multi = network(epochs="auto", random_state=seed)
        multi._read_target(y, shared=None, reset=True)
        codes = multi._read_target(y, shared=None, reset=False)
        labels = KerasClassifier(SMALL, epochs="auto", random_state=seed)
        for estimator, targets in ((multi, codes), (labels, several)):
            train, held_out = estimator._held_out_rows(
                X, targets, seed, groups=groups, ordered=False
            )
            assert set(range(10)) <= set(train)
            assert len(held_out) == 10
            ordered = estimator._held_out_rows(
                X[::-1], targets[::-1], seed, groups=None, ordered=True
            )
            assert ordered is None  # the last rows are all that the class has


def test_partial_fit_and_warm_start_go_on():
    first = Y["segment"] != "high"
    classes = {"segment": ["low", "middle", "high"]}
    part = network().partial_fit(X[first], Y[first], classes=classes)
    mean = dict(part.target_mean_)
    part.partial_fit(X, Y)
    assert part.target_mean_ == mean == {"amount": pytest.approx(Y["amount"][first].mean())}
    assert part.classes_["segment"].tolist() == ["high", "low", "middle"]
    with pytest.raises(ValueError, match="not those of the first call"):
        part.partial_fit(X, Y, classes={"segment": ["low", "other"]})
    warm = network(warm_start=True).fit(X, Y)
    before = warm.loss_curve_[-1]
    assert warm.fit(X, Y).loss_curve_[0] < before


def test_training_continues_from_a_fitted_network(fitted):
    goes_on = KerasMultiTask(FrozenEstimator(fitted), **WHOLE).fit(X, Y)
    assert goes_on.loss_curve_[0] < fitted.loss_curve_[-1]
    assert goes_on.target_mean_ == fitted.target_mean_
    with pytest.raises(ValueError, match=r"'segment': 3 classes.*y has.*'segment': 2 classes"):
        KerasMultiTask(FrozenEstimator(fitted)).fit(X, Y.assign(segment=Y["churn"]))


# In scikit-learn -----------------------------------------------------------------------------


def churn_accuracy(estimator, X, y):
    return accuracy_score(y["churn"], estimator.predict(X)["churn"])


def test_in_cross_validation_and_a_search(fitted):
    made = POOL.made
    scores = cross_validate(
        network(), X, Y, cv=3, scoring={"churn": churn_accuracy}, error_score="raise"
    )
    assert scores["test_churn"].shape == (3,)
    search = GridSearchCV(
        make_pipeline(StandardScaler().set_output(transform="pandas"), network()),
        {"kerasmultitask__loss_weights": [None, {"churn": 9.0}, {"churn": 1e-3, "amount": 2.0}]},
        scoring=churn_accuracy,
        cv=3,
        error_score="raise",
    ).fit(X, Y)
    assert search.predict(X).dtypes.equals(Y.dtypes)
    assert set(search.predict_proba(X)) == {"churn", "segment"}
    assert POOL.made == made  # weights of losses are no part of a program


def test_clones_pickles_and_files_predict_the_same(fitted, tmp_path):
    expected = fitted.predict(X)
    skstack.save(fitted, tmp_path / "network.skstack")
    for again in (
        clone(fitted).fit(X, Y),
        pickle.loads(pickle.dumps(fitted)),
        skstack.load(tmp_path / "network.skstack"),
    ):
        pd.testing.assert_frame_equal(again.predict(X), expected)
        assert again.score(X, Y) == fitted.score(X, Y)


def test_one_model_has_an_output_for_each_target(fitted, tmp_path):
    rows = X.to_numpy(np.float32)
    outputs = fitted.to_keras().predict(rows, verbose=0)
    assert list(outputs) == ["churn", "amount", "segment"]
    p = fitted.predict_proba(X)
    for name in p:
        np.testing.assert_allclose(outputs[name], p[name], atol=1e-6)
    np.testing.assert_allclose(outputs["amount"][:, 0], fitted.predict(X)["amount"], rtol=1e-5)
    joined = fitted.model_.predict(rows, verbose=0)
    np.testing.assert_allclose(joined[:, [1]], outputs["amount"], rtol=1e-5)
    np.testing.assert_allclose(joined[:, 2:], outputs["segment"], atol=1e-6)


def test_callbacks_save_a_network_that_keras_loads(tmp_path):
    path = tmp_path / "network.keras"
    saved = network(callbacks=keras.callbacks.ModelCheckpoint(path)).fit(X, Y)
    loaded = keras.models.load_model(path)
    rows = X.to_numpy(np.float32)
    np.testing.assert_allclose(
        loaded.predict(rows, verbose=0), saved.model_.predict(rows, verbose=0), rtol=1e-5
    )


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("format", ["saved_model", "onnx", "litert"])
def test_files_of_other_runtimes_name_their_outputs(fitted, tmp_path, format):
    path = tmp_path / "network"
    fitted.export(path, format=format)
    if format == "saved_model":
        names = tf.saved_model.load(path).signatures["serving_default"].structured_outputs
    elif format == "onnx":
        import onnxruntime

        names = [output.name for output in onnxruntime.InferenceSession(path).get_outputs()]
    else:
        from ai_edge_litert.interpreter import Interpreter

        names = Interpreter(str(path)).get_signature_list()["serving_default"]["outputs"]
    assert sorted(names) == ["amount", "churn", "segment"]


def in_onnx(path, rows):
    import onnxruntime

    return onnxruntime.InferenceSession(path).run(None, {"features": rows})


def test_a_target_with_the_name_of_an_input_is_refused_in_onnx_files(tmp_path):
    same = network(epochs=1).fit(X.to_numpy(), Y.rename(columns={"amount": "features"}))
    with pytest.raises(ValueError, match="the name 'features' of a target is also the name of an"):
        same.export(tmp_path / "same.onnx", format="onnx")
    assert not list(tmp_path.iterdir())
    assert set(same.to_keras()(X.to_numpy(np.float32))) == {"churn", "features", "segment"}


def test_onnx_files_of_bags_hold_all_rows(tmp_path):
    rows = X.to_numpy(np.float32)
    bags = network(n_bags=2).fit(rows, Y)
    bags.export(tmp_path / "bags.onnx", format="onnx")
    for some in (rows, rows[:2]):
        expected = bags.predict_proba(some)
        amount, churn, segment = in_onnx(tmp_path / "bags.onnx", some)
        np.testing.assert_allclose(churn, expected["churn"], atol=1e-5)
        np.testing.assert_allclose(segment, expected["segment"], atol=1e-5)
        np.testing.assert_allclose(amount.ravel(), bags.predict(some)["amount"], rtol=1e-5)


def test_onnx_files_of_features_hold_all_rows(tmp_path):
    rows = X.to_numpy(np.float32)
    features = KerasFeatureTransformer(network(), cv=2).fit(rows, Y)
    features.export(tmp_path / "features.onnx", format="onnx")
    for some in (rows, rows[:2]):
        (found,) = in_onnx(tmp_path / "features.onnx", some)
        np.testing.assert_allclose(found, features.transform(some), rtol=1e-5, atol=1e-5)


# As an upstream ------------------------------------------------------------------------------

ALL_FEATURES = ["outputs", "log_odds", "entropy", "margin", "codes"]


def transformer(model=None, **parameters):
    settings = {"cv": KFold(3), "random_state": 0, **parameters}
    return KerasFeatureTransformer(network() if model is None else model, **settings)


def test_features_are_those_of_each_target(fitted):
    features = transformer(FrozenEstimator(fitted), features=ALL_FEATURES, layers="hidden_1")
    table, segments = features.fit_transform(X), fitted.classes_["segment"]
    assert table.columns.tolist() == [
        "proba_yes__churn", "prediction__amount",
        *[f"proba_{label}__segment" for label in segments],
        "log_odds_yes__churn", *[f"log_odds_{label}__segment" for label in segments],
        "entropy__churn", "entropy__segment", "margin__churn", "margin__segment",
        "codes__churn", "codes__segment", *[f"hidden_1_{unit}" for unit in range(4)],
    ]  # fmt: skip
    p = fitted.predict_proba(X)
    np.testing.assert_allclose(table["proba_yes__churn"], p["churn"][:, 1], atol=1e-6)
    np.testing.assert_allclose(table["prediction__amount"], fitted.predict(X)["amount"], rtol=1e-5)
    np.testing.assert_allclose(table.iloc[:, 2:5], p["segment"], atol=1e-6)
    np.testing.assert_array_equal(table["codes__segment"].astype(int), p["segment"].argmax(axis=1))
    entropy = -(p["segment"] * np.log(p["segment"])).sum(axis=1)
    np.testing.assert_allclose(table["entropy__segment"], entropy, rtol=1e-4)


def test_features_learn_from_targets_of_polars():
    y = Y.astype({"segment": str})
    own, others = transformer(cv=2), transformer(cv=2)
    expected = own.fit_transform(X, y)
    np.testing.assert_array_equal(others.fit_transform(X, pl.from_pandas(y)), expected)
    assert others.get_feature_names_out().tolist() == own.get_feature_names_out().tolist()


def test_numbers_of_polars_are_targets_without_pyarrow(monkeypatch):
    def fails(table):
        raise ModuleNotFoundError("pyarrow")

    monkeypatch.setattr(pl.DataFrame, "to_pandas", fails)
    X, y = binary()[0], binary()[0][:, :2]
    features = KerasFeatureTransformer(LinearRegression(), cv=2)
    np.testing.assert_array_equal(
        features.fit_transform(X, pl.DataFrame(y)), features.fit_transform(X, y)
    )


def test_features_become_layers(fitted):
    features = transformer(
        FrozenEstimator(fitted), features=ALL_FEATURES[:-1], layers="hidden_1"
    ).fit(X)
    found = features.to_keras().predict(X.to_numpy(np.float32), verbose=0)
    np.testing.assert_allclose(found, features.transform(X), rtol=1e-4, atol=1e-5)


def other_labels(row):
    """Y with another value of each target in one row."""
    y = Y.copy()
    for name, value in Y.iloc[row].items():
        others = [label for label in Y[name] if label != value]
        y.loc[row, name] = value + 500.0 if name == "amount" else others[0]
    return y


def test_a_row_s_features_do_not_depend_on_its_own_targets():
    features = transformer(layers="hidden_1", features="outputs")
    before = clone(features).fit_transform(X, Y)
    after = clone(features).fit_transform(X, other_labels(7))
    np.testing.assert_array_equal(before[7], after[7])
    assert not np.array_equal(before[40], after[40])


def test_the_test_of_leakage_sees_in_sample_features(monkeypatch):
    monkeypatch.setattr(UpstreamSpec, "needs_folds", lambda self, request: False)
    features = transformer()
    before = clone(features).fit_transform(X, Y)
    assert not np.array_equal(before[7], clone(features).fit_transform(X, other_labels(7))[7])


def test_a_fold_without_a_class_has_its_unit():
    y = Y.sort_values("segment")
    features = transformer()
    table = features.fit_transform(X.loc[y.index], y)
    assert table.shape == (60, 5)
    assert np.isfinite(table).all()


def test_as_a_step_before_another_classifier():
    """The features of all targets, for a classifier of one of them."""
    iris, species = load_iris(return_X_y=True)
    y = pd.DataFrame({"species": species.astype(str), "width": iris[:, 3]})
    X = iris[:, :3]
    table = transformer(network(epochs=60, learning_rate=0.05)).fit_transform(X, y)
    assert LogisticRegression(max_iter=1000).fit(table, species).score(table, species) > 0.8


def test_in_a_stack_it_is_frozen_or_refused(fitted):
    """A stack passes its own y on, which is one target."""
    stack = StackedKerasClassifier(
        [("tasks", FrozenEstimator(fitted))], downstream=KerasClassifier(SMALL, **FIT), cv=2
    ).fit(X, Y["churn"])
    assert stack.transform(X).shape == (60, 5 + 4)
    watched = []
    spy = KerasClassifier(SMALL, callbacks=keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: watched.append(epoch)), **FIT)  # fmt: skip
    refused = StackedKerasClassifier([("first", spy), ("tasks", network())], cv=2)
    with pytest.raises(ValueError, match=r"y has shape \(60,\), but KerasMultiTask learns several"):
        refused.fit(X, Y["churn"])
    assert watched == []


def test_it_cannot_be_taught(fitted):
    taught = TeacherLoss(fitted)
    for loss in (taught, {"churn": taught}):
        with pytest.raises(TypeError, match="KerasMultiTask has no teachers; expected"):
            network(loss=loss).fit(X, Y)


def test_it_cannot_teach_predictions(fitted):
    student = KerasClassifier(SMALL, loss=TeacherLoss(fitted), **FIT)
    with pytest.raises(ValueError, match="predicts several targets"):
        student.fit(X, Y["churn"])


# Refusals ------------------------------------------------------------------------------------

ARRAY = np.column_stack([np.arange(60) % 2, X["b"]])
HUBER_SUM = keras.losses.Huber(reduction="sum")


@pytest.mark.parametrize(
    ("y", "parameters", "error", "message"),
    [
        (None, {}, ValueError, "requires y to be passed"),
        (dict(Y), {}, TypeError, r"y is a dict; .*pd\.DataFrame\(y\)"),
        (Y["churn"], {}, ValueError, r"shape \(60,\).*KerasClassifier or KerasRegressor"),
        (Y[:50], {}, ValueError, "inconsistent numbers of samples"),
        (Y[[]], {}, ValueError, "y has no columns"),
        (Y.set_axis(["a", "a", "b"], axis=1), {}, ValueError, r"duplicate column names: \['a'\]"),
        (Y.assign(amount=Y["amount"].where(X["a"] > 0)), {}, ValueError, r"missing.*'amount': "),
        (Y.assign(churn=Y["churn"].where(X["a"] > 0, None)), {}, ValueError, r"missing.*'churn': "),
        (Y.assign(amount=np.inf), {}, ValueError, r"y\['amount'\] holds infinity"),
        (Y.assign(amount=1e300), {}, ValueError, r"y\['amount'\] .*too large for float32"),
        (Y.assign(amount=1j), {}, ValueError, r"y\['amount'\] has dtype complex"),
        (Y.assign(churn=pd.Timestamp(0)), {}, ValueError, r"y\['churn'\] has dtype datetime"),
        (Y.assign(churn="no"), {}, ValueError, r"y\['churn'\] holds only one class: \['no'\]"),
        (Y.assign(churn=[1, "a"] * 30), {}, TypeError, r"y\['churn'\] holds labels of types"),
        (Y, {"tasks": {"churn": "regression"}}, ValueError, r"y\['churn'\] .*dtype (str|object)"),
        (Y, {"tasks": {"chum": "regression"}}, ValueError, r"tasks names \['chum'\].*'churn'"),
        (Y, {"tasks": {"churn": "ranking"}}, ValueError, "holds 'ranking'; expected"),
        (Y, {"tasks": ["regression"]}, ValueError, "has 1 entries, but y has 3 columns"),
        (ARRAY, {}, ValueError, r"tasks=None gives no kind for the columns \[0, 1\]"),
        (ARRAY, {"tasks": {1: "regression"}}, ValueError, r"no kind for the columns \[0\]"),
        (Y, {"loss": {"chum": "mse"}}, ValueError, r"loss names \['chum'\]"),
        (Y, {"loss": {"churn": "nonsense"}}, ValueError, "loss='nonsense'"),
        (Y, {"loss": {"churn": "mean_absolute_percentage_error"}}, ValueError, "target 'churn'"),
        (Y, {"loss": {"amount": "sparse_categorical_crossentropy"}}, ValueError, "'amount'"),
        (Y, {"loss": {"amount": HUBER_SUM}}, ValueError, "average over rows"),
        (Y.assign(amount=-1.0), {"loss": {"amount": "poisson"}}, ValueError, r"y\['amount'\]"),
        (Y, {"loss_weights": {"amount": 0}}, ValueError, r"loss_weights\['amount'\]=0"),
        (Y, {"loss_weights": {"chum": 1.0}}, ValueError, r"loss_weights names \['chum'\]"),
        (Y, {"metrics": {"churn": "accuracy"}}, TypeError, "must be a list of metrics"),
        (Y, {"metrics": {"chum": ["accuracy"]}}, ValueError, r"metrics names \['chum'\]"),
        (Y, {"model": keras.Sequential()}, TypeError, r"spec\.outputs"),
    ],
)
def test_what_cannot_be_learned_is_refused(y, parameters, error, message):
    made = POOL.made
    with pytest.raises(error, match=message):
        network(**parameters).fit(X, y)
    assert POOL.made == made


def test_later_targets_must_be_those_of_the_fit(fitted):
    with pytest.raises(ValueError, match=r"y has the columns \['amount'"):
        fitted.score(X, Y[["amount", "churn", "segment"]])
    for y_val, message in (
        (Y.assign(churn="perhaps"), r"y_val: y\['churn'\] holds labels \['perhaps'\]"),
        (Y[["churn"]], r"y_val: y has the columns \['churn'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            network().fit(X, Y, X_val=X, y_val=y_val)
    many, y = pd.concat([X] * 2), pd.concat([Y] * 2)
    with pytest.warns(UserWarning, match=r"y\['amount'\]"):
        network(epochs=1).fit(many, y, X_val=X, y_val=Y.assign(amount=1e6 * Y["amount"]))


def test_whole_numbers_are_names_of_targets_too():
    y = pd.DataFrame({1: Y["churn"], 0: np.where(X["d"] > 3, "yes", "no")})
    two = network().fit(X, y)
    with pytest.raises(ValueError, match=r"y has the columns \[0, 1\]"):
        two.score(X, y[[0, 1]])
    with pytest.raises(ValueError, match=r"y_val: y has the columns \[0, 1\]"):
        network().fit(X, y, X_val=X, y_val=y[[0, 1]])
    assert two.score(X, y.to_numpy()) == two.score(X, y)


def test_classes_of_a_failed_partial_fit_are_forgotten():
    part = network()
    with pytest.raises(ValueError, match="classes names"):
        part.partial_fit(X, Y, classes={"other": ["low", "high"]})
    assert part.partial_fit(X, Y).classes_["churn"].tolist() == ["no", "yes"]


def test_features_of_classes_need_a_target_of_classification():
    with pytest.raises(ValueError, match=r"features=\['entropy'\] need classification targets"):
        transformer(features="entropy").fit(X, Y[["amount"]])
