"""Outputs and inputs of every rank, in every part."""

import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
from _fresh import run
from _models import SMALL
from imblearn.over_sampling import SMOTE
from sklearn.datasets import load_digits
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack.networks import MLP, Autoencoder, SequenceEncoder, recipe
from skstack.preprocessing import PadSequences

RNG = np.random.default_rng(0)
LENGTHS = np.array([6, 1, 3, 4, 2, 6, 5, 3, 2, 4, 1, 6])
RAGGED = [RNG.normal(size=(n, 2)) for n in LENGTHS]
PADDED = np.zeros((12, 6, 2), np.float32)
for row, steps in zip(PADDED, RAGGED, strict=True):
    row[: len(steps)] = steps
Y = np.arange(12) % 2
CONVOLUTION = SequenceEncoder((2,), layer="conv1d")
"""Where recurrence is not the subject: a recurrent layer takes a second to compile."""


def recurrent(layer):
    return keras.Sequential(
        [
            keras.Input((6, 2)),
            keras.layers.Masking(0.0),
            layer(3, return_sequences=True, name="states"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def unpadded(model):
    layer = model.get_layer("states")
    steps = keras.Input((None, 2))
    alone = keras.Model(steps, layer(steps))
    return [np.asarray(alone(row[None].astype("float32")))[0] for row in RAGGED]


@pytest.mark.slow(first=4)
@pytest.mark.parametrize("pooling", ["flatten", "mean", "max", "last"])
@pytest.mark.parametrize("layer", [keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN])
def test_padding_is_ignored_in_pooling_and_zero_when_flattened(layer, pooling):
    model = recurrent(layer)
    states = unpadded(model)
    if pooling == "flatten":
        expected = np.zeros((12, 6, 3))
        for row, real in zip(expected, states, strict=True):
            row[: len(real)] = real
        expected = expected.reshape(12, -1)
    else:
        reduce = {"mean": lambda s: s.mean(0), "max": lambda s: s.max(0), "last": lambda s: s[-1]}
        expected = np.array([reduce[pooling](real) for real in states])
    found = KerasFeatureTransformer(model, layers="states", pooling=pooling).fit_transform(PADDED)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["flatten", "mean", "max", "last"])
def test_rows_of_padding_only_give_zeros(pooling):
    X = PADDED.copy()
    X[3] = 0
    transformer = KerasFeatureTransformer(
        recurrent(keras.layers.LSTM), layers="states", pooling=pooling
    )
    assert not transformer.fit_transform(X)[3].any()


def test_masks_of_embeddings_are_used():
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), keras.layers.Embedding(9, 4, mask_zero=True, name="e")]
    )
    ids = np.array([[3, 4, 0, 0, 0], [8, 1, 2, 5, 7]])
    table = model.layers[-1].get_weights()[0]
    found = KerasFeatureTransformer(model, layers="e", pooling="mean").fit_transform(ids)
    np.testing.assert_allclose(found[0], table[[3, 4]].mean(0), atol=1e-6)
    np.testing.assert_allclose(found[1], table[ids[1]].mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "reduce"),
    [
        ("mean", lambda maps: maps.mean(axis=(1, 2))),
        ("max", lambda maps: maps.max(axis=(1, 2))),
        ("last", lambda maps: maps[:, -1, -1]),
        ("flatten", lambda maps: maps.reshape(len(maps), -1)),
    ],
)
def test_feature_maps_are_pooled_over_height_and_width(pooling, reduce):
    model = keras.Sequential([keras.Input((5, 4, 2)), keras.layers.Conv2D(3, 2, name="maps")])
    images = RNG.normal(size=(7, 5, 4, 2)).astype("float32")
    found = KerasFeatureTransformer(model, layers="maps", pooling=pooling).fit_transform(images)
    np.testing.assert_allclose(found, reduce(np.asarray(model(images))), atol=1e-5)


def test_outputs_of_a_network_are_pooled_like_layers():
    model = recurrent(keras.layers.LSTM)
    states = keras.Model(model.inputs, model.get_layer("states").output)
    of_outputs = KerasFeatureTransformer(states, pooling="max").fit_transform(PADDED)
    of_layer = KerasFeatureTransformer(model, layers="states", pooling="max").fit_transform(PADDED)
    np.testing.assert_array_equal(of_outputs, of_layer)


def test_a_trained_network_keeps_its_masks_through_cross_fitting():
    lstm = KerasClassifier(SequenceEncoder((3,), pooling="mean"), epochs=1, random_state=0)
    transformer = KerasFeatureTransformer(lstm, layers="sequence_1", pooling="flatten", cv=2)
    table = transformer.fit_transform(PADDED, Y).reshape(12, 6, 3)
    for row, n in zip(table, LENGTHS, strict=True):
        assert row[:n].all()
        assert not row[n:].any()


def test_a_layer_with_several_outputs_is_refused():
    steps = keras.Input((6, 2))
    whole, state = keras.layers.GRU(3, return_sequences=True, return_state=True, name="gru")(steps)
    model = keras.Model(steps, [whole, state])
    with pytest.raises(ValueError, match=r"layers=\['gru'\] have 2 outputs.*return_state"):
        KerasFeatureTransformer(model, layers="gru").fit(PADDED)
    assert KerasFeatureTransformer(model).fit_transform(PADDED).shape == (12, 6 * 3 + 3)


# Several inputs, several outputs


@pytest.fixture
def two_inputs():
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
    features = keras.layers.Dense(4, activation="tanh", name="of_left")(left)
    others = keras.layers.Dense(3, name="of_right")(right)
    return keras.Model([left, right], [features, others])


NUMBERS = RNG.normal(size=(12, 5)).astype("float32")
NAMED = pd.DataFrame(NUMBERS, columns=["left__a", "left__b", "right__a", "right__b", "right__c"])


@pytest.mark.parametrize(
    ("X", "inputs"),
    [
        (NUMBERS, {"left": [0, 1], "right": slice(2, 5)}),
        (NUMBERS, {"right": [2, 3, 4], "left": [True, True, False, False, False]}),
        (NUMBERS, [[0, 1], [2, 3, 4]]),
        (NAMED, {"left": ["left__a", "left__b"], "right": lambda X: list(X.columns[2:])}),
        (NAMED, "prefix"),
        (pl.from_pandas(NAMED), "prefix"),
        (NAMED.iloc[:, [2, 0, 3, 1, 4]], "prefix"),
        (
            pd.DataFrame({"right": list(NUMBERS[:, 2:]), "left": list(NUMBERS[:, :2])}),
            None,
        ),
    ],
)
def test_columns_reach_inputs_by_name_by_order_and_by_prefix(two_inputs, X, inputs):
    found = KerasFeatureTransformer(two_inputs, inputs=inputs).fit(X)
    expected = np.hstack(two_inputs([NUMBERS[:, :2], NUMBERS[:, 2:]]))
    np.testing.assert_allclose(found.transform(X), expected, atol=1e-6)
    assert found.get_feature_names_out()[[0, 4]].tolist() == ["of_left_0", "of_right_0"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            {"left": [0, 1], "right": [2, 3]},
            r"'left'.*\(None, 3\).*'right': \(None, 2\).*'numeric'",
        ),
        ({"left": [0, 1, 2], "right": [3, 4]}, r"\(None, 2\).*'left'.*\(None, 3\)"),
        ({"left": [0, 9]}, r"inputs\['left'\]=\[0, 9\] selects no columns"),
        ({"left": []}, r"inputs\['left'\]=.* selects no columns"),
        ({1: [0]}, 'expected None, "prefix", a dict'),
        ("prefix", "requires column names"),
        ([[0, 1]], "input_0"),
        (None, r"'left'.*\(None, 5\).*set `inputs`"),
    ],
)
def test_inputs_that_do_not_match_are_refused(two_inputs, inputs, message):
    with pytest.raises(ValueError, match=message):
        KerasFeatureTransformer(two_inputs, inputs=inputs).fit(NUMBERS)


class OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_a_list_of_inputs_with_its_own_step_is_matched_by_name(engine):
    """Also where the blocks are in another order, and for the bounds of embeddings."""
    rng = np.random.default_rng(0)
    X = np.c_[rng.integers(0, 3, 40), rng.integers(0, 20, 40)]
    few, many = X[:, :1], X[:, 1:]
    inputs = [keras.Input((1,), name=name, dtype="int32") for name in ("many", "few")]
    codes = [keras.layers.Embedding(n, 2)(i) for n, i in zip((20, 3), inputs, strict=True)]
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(keras.layers.Concatenate()(codes)))
    model = OwnStep(inputs, outputs)
    regressor = KerasRegressor(
        model, inputs={"few": [0], "many": [1]}, epochs=1, learning_rate=1e-12, engine=engine
    ).fit(X, X[:, 0])
    expected = np.ravel(model([many, few]))
    np.testing.assert_allclose(regressor.predict(X), expected, rtol=1e-5)
    np.testing.assert_allclose(np.ravel(regressor.to_keras()(X)), expected, rtol=1e-5)


def test_an_input_of_a_category_beside_numbers_is_refused():
    X = pd.DataFrame({"age": [1.0, 2.0], "job": ["a", "b"]})
    with pytest.raises(
        ValueError, match=r"'both' combines the columns \['age', 'job'\].*\['job'\] hold cat"
    ):
        KerasClassifier(inputs={"both": ["age", "job"]}).fit(X, [0, 1])


@pytest.mark.slow
def test_two_networks_join_their_features_in_a_stack(tmp_path):
    """An image network's 8 features and a text network's 4, from two saved models."""
    keras.utils.set_random_seed(0)
    X, y = load_digits(n_class=3, return_X_y=True)
    images = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(8, 3, activation="relu", name="maps"),
            keras.layers.GlobalMaxPooling2D(name="pooled"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    images.compile("adam", "sparse_categorical_crossentropy")
    images.fit(X.reshape(-1, 8, 8, 1), y, epochs=1, verbose=0)
    images.save(tmp_path / "images.keras")
    words = keras.Sequential(
        [keras.Input((6,), dtype="int32"), keras.layers.Embedding(20, 4, mask_zero=True)]
    )
    words.save(tmp_path / "words.keras")
    ids = RNG.integers(1, 20, size=(len(X), 6))
    table = pd.DataFrame({"image": list(X.reshape(-1, 8, 8, 1)), "text": list(ids), "age": y * 1.0})
    upstream = [
        (
            "image",
            KerasFeatureTransformer(str(tmp_path / "images.keras"), layers="pooled"),
            ["image"],
        ),
        ("text", KerasFeatureTransformer(str(tmp_path / "words.keras"), pooling="mean"), ["text"]),
    ]
    stack = StackedKerasClassifier(
        upstream,
        downstream=KerasClassifier(MLP(8), inputs="prefix", epochs=60),
        blend=False,
        sampler=SMOTE(random_state=0),
        random_state=0,
    )
    scores = cross_val_score(stack, table, y, cv=2, error_score="raise")
    assert scores.min() > 0.8
    stack.fit(table, y)
    blocks = stack.downstream_.blocks_.blocks_
    assert [(block.name, block.shape) for block in blocks] == [
        ("image", (8,)),
        ("text", (4,)),
        ("numeric", (1,)),
    ]
    inputs = stack.downstream_.model_.input
    assert sorted(inputs) == ["image", "numeric", "text"]
    script = (
        "import sys, keras, numpy as np\n"
        "from skstack import KerasFeatureTransformer\n"
        "X = np.load(sys.argv[2])\n"
        "made = KerasFeatureTransformer(sys.argv[1], layers='pooled').fit_transform(X)\n"
        "np.save(sys.argv[3], made)\n"
    )
    np.save(tmp_path / "X.npy", X.reshape(-1, 8, 8, 1))
    arguments = [tmp_path / "images.keras", tmp_path / "X.npy", tmp_path / "made.npy"]
    run(script, *arguments)
    again = stack.named_upstream_["image"].transform(table[["image"]])
    np.testing.assert_array_equal(np.load(tmp_path / "made.npy"), again)


# Cells that hold arrays


@pytest.mark.slow
def test_columns_of_arrays_are_split_like_other_columns():
    X, y = load_digits(n_class=2, return_X_y=True)
    frame = pd.DataFrame({"picture": list(X.reshape(-1, 8, 8, 1).astype("uint8"))}, index=y * 1000)
    network = keras.Sequential(
        [keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    by_cells = KerasClassifier(network, epochs=2, random_state=0)
    by_shape = KerasClassifier(network, input_shape=(8, 8, 1), epochs=2, random_state=0)
    scores = cross_val_score(by_cells, frame, y, cv=3, error_score="raise")
    np.testing.assert_array_equal(scores, cross_val_score(by_shape, X, y, cv=3))
    search = GridSearchCV(by_cells, {"epochs": [1, 10]}, cv=2, error_score="raise").fit(frame, y)
    assert search.score(frame, y) > 0.9


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_cells_of_lists_are_arrays(make):
    X = make({"steps": PADDED.tolist(), "ids": [[1, 2, 0]] * 12, "age": [1.0] * 12})
    fitted = KerasClassifier(CONVOLUTION, epochs=1, random_state=0).fit(X, Y)
    kinds = {block.name: (block.kind, block.shape) for block in fitted.blocks_.blocks_}
    assert kinds == {
        "numeric": ("numeric", (1,)),
        "steps": ("sequence", (6, 2)),
        "ids": ("tokens", (3,)),
    }


def test_unknown_token_ids_share_a_code_in_recipes_and_are_kept_in_keras_models():
    ids = pd.DataFrame({"text": [np.array([1, 2]), np.array([3, 1])] * 6})
    new = pd.DataFrame({"text": [np.array([1, 99]), np.array([1, 4])]})
    fitted = KerasClassifier(CONVOLUTION, epochs=1, random_state=0).fit(ids, Y)
    first, second = fitted.predict_proba(new)
    np.testing.assert_array_equal(first, second)
    model = keras.Sequential([keras.Input((2,), dtype="int32"), keras.layers.Embedding(100, 3)])
    frozen = KerasFeatureTransformer(model).fit(ids)
    expected = np.asarray(model(np.array([[1, 99], [1, 4]]))).reshape(2, -1)
    np.testing.assert_allclose(frozen.transform(new), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("cells", "error", "message"),
    [
        (RAGGED, ValueError, r"'steps' holds arrays of several shapes.*PadSequences"),
        ([*PADDED[:-1], None], ValueError, r"not in the rows \[11\].*None"),
        ([*PADDED[:-1], np.array([["a"]])], ValueError, "several shapes"),
        ([np.array(["a", "b"])] * 12, TypeError, "arrays of <U1; expected numbers"),
        ([*PADDED[:-1], np.full((6, 2), np.nan)], ValueError, "NaN"),
        ([np.array([-1, 2])] * 12, ValueError, "token ids.*negative"),
        ([[1, [2]]] * 12, ValueError, "holds ragged lists"),
    ],
)
def test_cells_that_do_not_form_an_array_are_refused_by_column(cells, error, message):
    column = np.empty(12, dtype=object)
    column[:] = cells
    frame = pd.DataFrame({"steps": column})
    with pytest.raises(error, match=message):
        KerasClassifier(SequenceEncoder((2,)), epochs=1).fit(frame, Y)


def test_another_shape_at_prediction_time_is_refused():
    frame = pd.DataFrame({"steps": list(PADDED)})
    fitted = KerasClassifier(CONVOLUTION, epochs=1, random_state=0).fit(frame, Y)
    with pytest.raises(ValueError, match=r"'steps'.*\(5, 2\).*\(6, 2\)"):
        fitted.predict(pd.DataFrame({"steps": list(PADDED[:, :5])}))


def test_array_columns_pass_through_only_if_named():
    frame = pd.DataFrame({"steps": list(PADDED), "age": np.arange(12.0)})
    encoder = KerasClassifier(CONVOLUTION, epochs=1)
    stack = StackedKerasClassifier(
        [("voice", encoder, ["steps"])],
        downstream=KerasClassifier(MLP(2), epochs=1),
        blend=False,
        cv=2,
        random_state=0,
    )
    names = stack.fit(frame, Y).get_feature_names_out().tolist()
    assert names == ["voice__proba_1", "age"]
    stack.set_params(passthrough=["steps"], downstream=encoder).fit(frame, Y)
    assert stack.get_feature_names_out().tolist() == ["voice__proba_1", "steps"]
    np.testing.assert_array_equal(np.stack(stack.transform(frame)["steps"]), PADDED)


def test_lists_of_sequences_go_through_stacks_and_searches():
    upstream = make_pipeline(
        PadSequences(length=6),
        KerasFeatureTransformer(KerasClassifier(CONVOLUTION, epochs=1), layers="latent", cv=2),
    )
    stack = StackedKerasClassifier(
        upstream, downstream=KerasClassifier(MLP(2), epochs=1), blend=False, random_state=0
    )
    assert cross_val_score(stack, RAGGED, Y, cv=2, error_score="raise").shape == (2,)
    stack.fit(RAGGED, Y)
    # One row, and rows that happen to have one length, are still lists of sequences.
    np.testing.assert_array_equal(stack.predict_proba(RAGGED[:1]), stack.predict_proba(RAGGED)[:1])
    same = [RAGGED[0], RAGGED[5]]
    np.testing.assert_array_equal(stack.predict_proba(same), stack.predict_proba(RAGGED)[[0, 5]])


# Categories, and numbers that are missing


@pytest.mark.slow
def test_hashed_categories_have_a_fixed_number_of_codes(shared_data):
    adult = shared_data("adult").head(600)
    y = adult.pop("income")
    X = adult.drop(columns="split")
    fitted = KerasClassifier(MLP(8), n_hash_buckets=10, epochs=2, random_state=0).fit(X, y)
    known = {block.name: block.cardinality for block in fitted.blocks_.blocks_}
    assert known["occupation"] == known["education"] == 12
    assert known["sex"] == 4
    codes = fitted.blocks_.split(X.assign(occupation="juggler"))["occupation"]
    assert 2 <= codes[0] < 12  # never unseen
    hashing = keras.layers.Hashing(10)
    expected = np.asarray(hashing(X["occupation"].to_numpy(dtype=str)))
    np.testing.assert_array_equal(fitted.blocks_.split(X)["occupation"] - 2, expected)


def test_integers_are_hashed_by_value():
    ints = pd.DataFrame({"shop": pd.Series([10, 20, 30, 40]).astype("category")})
    fitted = KerasClassifier(MLP(2), n_hash_buckets=3, epochs=1).fit(ints, [0, 1, 0, 1])
    codes = fitted.blocks_.split(ints)["shop"]
    floats = pd.DataFrame({"shop": pd.Series([10.0, 20.0, 30.0, 40.0]).astype("category")})
    np.testing.assert_array_equal(fitted.blocks_.split(floats)["shop"], codes)
    words = np.array(["10", "20", "30", "40"])
    np.testing.assert_array_equal(codes - 2, np.asarray(keras.layers.Hashing(3)(words)))


def test_samplers_accept_hashed_categories_and_indicators():
    X = pd.DataFrame(
        {
            "job": RNG.choice([f"job {i}" for i in range(30)], 120),
            "pay": np.where(RNG.random(120) < 0.2, np.nan, RNG.normal(size=120)),
            "age": RNG.normal(size=120),
        }
    )
    y = np.arange(120) % 4 == 0
    seen = []

    class Spy(SMOTE):
        def _fit_resample(self, X, y, **params):
            seen.append((X, y))
            return X, y

    from imblearn.over_sampling import SMOTENC

    fitted = KerasClassifier(
        MLP(4),
        n_hash_buckets=5,
        imputer=SimpleImputer(add_indicator=True),
        sampler=SMOTENC("auto", random_state=0),
        epochs=2,
        random_state=0,
    ).fit(X, y)
    assert fitted.blocks_.blocks_[0].shape == (3,)
    table = fitted.blocks_.table(fitted.blocks_.split(X), for_sampler=True)
    assert list(table.columns) == ["job", "pay", "age", "missing_pay"]
    for name, array in fitted.blocks_.split_again(table).items():
        np.testing.assert_array_equal(array, fitted.blocks_.split(X)[name])
    assert fitted.predict_proba(X).shape == (120, 2)


def test_missing_numbers_are_imputed_from_training_rows():
    X = np.array([[1.0, 5.0], [3.0, np.nan], [np.nan, 7.0], [2.0, 6.0]] * 5)
    y = np.arange(20) % 2
    fitted = KerasClassifier(MLP(2), imputer=SimpleImputer(add_indicator=True), epochs=1).fit(X, y)
    row = fitted.blocks_.split(np.array([[np.nan, np.nan]]))["numeric"]
    np.testing.assert_allclose(row, [[2.0, 6.0, 1.0, 1.0]])
    with pytest.raises(ValueError, match="NaN"):
        KerasClassifier(MLP(2), epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="imputer"):
        KerasClassifier(imputer=VarianceThreshold()).fit(X, y)


def test_folds_share_indicators_and_have_their_own_means():
    X = np.zeros((12, 2))
    X[:, 0] = np.arange(12)
    X[0, 1] = np.nan  # one row, so that some fold has none
    transformer = KerasFeatureTransformer(
        KerasClassifier(MLP(2), imputer=SimpleImputer(add_indicator=True), epochs=1),
        cv=3,
        refit=False,
        random_state=0,
    )
    assert np.isfinite(transformer.fit_transform(X, Y)).all()
    inner = [upstream.view.estimator.blocks_ for upstream in transformer._upstreams]
    assert {blocks.blocks_[0].shape for blocks in inner} == {(3,)}


def test_missing_numbers_pass_to_a_downstream_that_supports_them():
    X = NUMBERS.copy()
    X[2, 1] = np.nan
    filled = KerasClassifier(MLP(2), imputer=SimpleImputer(), epochs=1)
    stack = StackedKerasClassifier(
        [("a", filled)], downstream=filled, blend=False, cv=2, random_state=0
    )
    assert np.isfinite(stack.fit(X, Y).predict_proba(X)).all()
    assert np.isnan(stack.transform(X)).sum() == 1
    with pytest.raises(ValueError, match="NaN"):
        stack.set_params(downstream=KerasClassifier(MLP(2), epochs=1)).fit(X, Y)
    with pytest.raises(ValueError, match="NaN"):
        stack.set_params(downstream=filled, sampler=SMOTE(k_neighbors=2)).fit(X, Y)


def test_codes_of_an_upstream_are_embedded_downstream():
    X, y = load_digits(n_class=4, return_X_y=True)
    codes = KerasFeatureTransformer(
        KerasClassifier(MLP(8), epochs=10, random_state=0), features="codes", cv=3
    )
    stack = StackedKerasClassifier(
        [("digit", codes)],
        downstream=KerasClassifier(MLP(8), epochs=40),
        blend=False,
        passthrough=False,
        random_state=0,
    ).fit(X, y)
    (block,) = stack.downstream_.blocks_.blocks_
    assert (block.name, block.kind, block.cardinality) == ("digit__codes", "categorical", 6)
    assert stack.score(X, y) > 0.9


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (np.eye(3, dtype="float32")[[2, 0, 1]], [2, 0, 1]),
        (np.array([[4.0], [0.0], [7.0]], "float32"), [4, 0, 7]),
        (np.array([[0.2], [0.9], [0.4]], "float32"), [0, 1, 0]),
    ],
)
def test_codes_of_a_frozen_network(outputs, expected):
    steps = keras.Input((outputs.shape[1],))
    model = keras.Model(steps, keras.layers.Activation("linear")(steps))
    table = KerasFeatureTransformer(model, features="codes").fit_transform(outputs)
    assert table["codes"].tolist() == expected
    assert table["codes"].dtype == "category"


def test_codes_need_categories():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="d")])
    with pytest.raises(ValueError, match=r"codes.*returns numbers from"):
        KerasFeatureTransformer(model, features="codes").fit(10 * NUMBERS[:, :2])
    with pytest.raises(ValueError, match=r"codes.*refit=False"):
        KerasFeatureTransformer(
            KerasClassifier(SMALL, epochs=1), features="codes", refit=False, cv=2
        ).fit(NUMBERS, Y)


# Dtypes and shapes


# One network of each kind for all dtypes: each further one would be compiled.
THREE = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
FLAT = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])


@pytest.mark.parametrize("dtype", ["bool", "float16", "float64", "int8", "uint8", "int64"])
def test_numbers_of_every_dtype_are_converted_for_the_network(dtype):
    whole = (RNG.random((12, 5)) > 0.5).astype(dtype)
    found = KerasFeatureTransformer(THREE).fit_transform(whole)
    np.testing.assert_array_equal(
        found, KerasFeatureTransformer(THREE).fit_transform(whole.astype("float32"))
    )
    images = whole.reshape(12, 5, 1)
    assert KerasClassifier(FLAT, epochs=1).fit(images, Y).predict(images).shape == (12,)


def test_a_float16_network_has_float32_inputs_and_outputs():
    model = keras.Sequential(
        [keras.Input((5,), dtype="float16"), keras.layers.Dense(3, dtype="float16")]
    )
    found = KerasFeatureTransformer(model).fit_transform(NUMBERS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.asarray(model(NUMBERS.astype("float16"))), atol=1e-2)


def test_an_implicit_reshape_is_refused():
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3, name="maps")])
    X, _ = load_digits(n_class=2, return_X_y=True)
    with pytest.raises(
        ValueError, match=r"\(None, 8, 8, 1\).*\(None, 64\).*input_shape=\(8, 8, 1\)"
    ):
        KerasFeatureTransformer(model, layers="maps").fit(X)
    found = KerasFeatureTransformer(model, layers="maps", input_shape=(8, 8, 1)).fit_transform(X)
    expected = np.asarray(model(X.reshape(-1, 8, 8, 1))).reshape(len(X), -1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 9), r"input_shape=\(8, 9\) holds 72 numbers.*5"),
        ((0, 5), "input_shape=.*shape of one row"),
        (("a",), "input_shape=.*shape of one row"),
        ({"numeric": 5}, "input_shape=.*shape of one row"),
        ({"picture": (5, 1)}, "input_shape=.*names unknown inputs"),
        (5, "input_shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_before_training(shape, message):
    with pytest.raises(ValueError, match=message):
        KerasClassifier(input_shape=shape).fit(NUMBERS, Y)


def test_an_autoencoder_reconstructs_images_as_columns():
    @recipe
    def pictures(spec):
        inputs = spec.inputs()
        x = keras.layers.Conv2D(2, 3, padding="same", name="latent")(inputs["tensor"])
        return keras.Model(inputs, keras.layers.Conv2D(1, 3, padding="same")(x))

    X, _ = load_digits(n_class=2, return_X_y=True)
    fitted = KerasAutoencoder(pictures(), input_shape=(8, 8, 1), epochs=1).fit(X)
    assert fitted.inverse_transform(fitted.transform(X)).shape == X.shape
    assert fitted.reconstruction_error(X).shape == (len(X),)


def test_errors_of_reconstruction_are_in_units_of_variances_whichever_input_holds_a_column():
    X = RNG.normal(size=(64, 3)) * [1.0, 100.0, 10.0]
    settings = {"epochs": 1, "random_state": 0, "batch_size": 64}
    recipe = Autoencoder(2, latent_size=1, scaling=None)
    one = KerasAutoencoder(recipe, **settings).fit(X)
    two = KerasAutoencoder(recipe, inputs={"left": [0, 1], "right": [2]}, **settings).fit(X)
    rebuilt = two.inverse_transform(two.transform(X))
    expected = np.square((X - rebuilt) / X.std(axis=0)).mean(axis=1)
    np.testing.assert_allclose(two.reconstruction_error(X), expected, rtol=1e-3)
    assert one.reconstruction_error(X).shape == (64,)


# Parameters of a stack refer to X


def zipped():
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "picture": list(rng.normal(size=(60, 3, 2))),
            "age": rng.normal(size=60),
            "zip": rng.integers(0, 4, size=60),
            "amount": rng.normal(size=60),
        }
    )


HALVES = np.arange(60) % 2
QUICK = KerasClassifier(MLP(2), epochs=1, random_state=0)


@pytest.mark.parametrize("categorical", [[2], ["zip"], [False, False, True, False]])
def test_categorical_features_of_a_stack_refer_to_all_columns_of_X(categorical):
    X = zipped()
    encoder = KerasClassifier(CONVOLUTION, categorical_features=categorical, epochs=1)
    stack = StackedKerasClassifier(
        [("voice", encoder)],
        downstream=QUICK,
        blend=False,
        categorical_features=categorical,
        cv=2,
        random_state=0,
    )
    for passthrough in (True, ["amount", "zip"], [3, 2, 1], ["amount"]):
        table = stack.set_params(passthrough=passthrough).fit(X, HALVES).transform(X)
        if hasattr(table, "dtypes"):
            categories = [name for name, kind in table.dtypes.items() if kind == "category"]
            assert categories == ["zip"]
        else:
            assert passthrough == ["amount"]
    array = X[["age", "zip", "amount"]].to_numpy()
    plain = StackedKerasClassifier(
        [("a", QUICK)],
        downstream=QUICK,
        blend=False,
        categorical_features=[1],
        passthrough=[2, 1],
        cv=2,
    ).fit(array, HALVES)
    assert plain.get_feature_names_out().tolist() == ["a__proba_1", "x2", "x1"]
    assert plain.transform(array)["x1"].dtype == "category"


def test_a_callable_selects_columns_once_in_fit():
    X = zipped().drop(columns="picture")
    X["amount"] *= 10

    def widest(table):
        return [table.std().idxmax()]

    stack = StackedKerasClassifier(
        [("a", QUICK, widest)],
        downstream=QUICK,
        blend=False,
        passthrough=widest,
        cv=2,
        random_state=0,
    ).fit(X, HALVES)
    moved = X.assign(age=X["age"] * 1000)
    np.testing.assert_array_equal(stack.predict_proba(moved), stack.predict_proba(X))
    np.testing.assert_array_equal(stack.predict_proba(X.head(1)), stack.predict_proba(X)[:1])


def test_folds_pad_to_the_longest_sequence_of_all_training_rows():
    lengths = [*([3] * 29), 9, *([2] * 30)]  # one fold trains without the longest
    X = [np.ones((n, 2)) for n in lengths]
    padded = make_pipeline(PadSequences(), KerasClassifier(CONVOLUTION, epochs=1))
    for refit in (True, False):
        transformer = KerasFeatureTransformer(padded, cv=3, refit=refit, random_state=0)
        assert transformer.fit_transform(X, HALVES).shape == (60, 1)
    stack = StackedKerasClassifier([("voice", padded)], downstream=QUICK, blend=False, cv=3)
    assert stack.fit(X, HALVES).predict(X).shape == (60,)


def test_steps_with_other_columns_in_a_fold_are_refused():
    X = pd.DataFrame({"job": ["a", "b"] * 29 + ["c", "d"]})
    one_hot = make_pipeline(OneHotEncoder(handle_unknown="ignore", sparse_output=False), QUICK)
    with pytest.raises(ValueError, match=r"return 2 columns for .* but 4 for all.*equal shapes"):
        KerasFeatureTransformer(one_hot, cv=KFold(3)).fit_transform(X, HALVES)


def test_categories_are_separate_inputs_with_prefix():
    both = KerasFeatureTransformer(QUICK, features=["outputs", "codes"], cv=2)
    stack = StackedKerasClassifier(
        [("größe 1", both)],
        downstream=KerasClassifier(MLP(2), inputs="prefix", epochs=1),
        blend=False,
    ).fit(NUMBERS, Y)
    names = [block.name for block in stack.downstream_.blocks_.blocks_]
    assert names == ["gr__e_1", "numeric", "gr__e_1__codes"]
    assert stack.downstream_.model_.predict(
        stack.downstream_.blocks_.split(stack.transform(NUMBERS)), verbose=0
    ).shape == (12, 1)
    with pytest.raises(ValueError, match=r"'größe' is not a valid Keras layer name"):
        KerasClassifier(inputs={"größe": [0]}).fit(NUMBERS, Y)


def test_duplicate_column_names_are_refused():
    X = pd.DataFrame({"a__proba_1": np.arange(12.0), "job": list("ab") * 6})
    stack = StackedKerasClassifier([("a", QUICK)], downstream=QUICK, cv=2)
    with pytest.raises(ValueError, match=r"duplicate column names: \['a__proba_1'\]"):
        stack.fit(X, Y)


@pytest.mark.slow
def test_indicators_of_a_column_in_two_inputs_pass_through_a_sampler():
    X = NUMBERS.copy()
    X[::5, 0] = np.nan
    fitted = KerasClassifier(
        MLP(2),
        inputs={"left": [0], "both": [0, 1]},
        imputer=SimpleImputer(add_indicator=True),
        sampler=SMOTE(k_neighbors=2),
        epochs=1,
    ).fit(X, np.arange(12) < 4)
    assert np.isfinite(fitted.predict_proba(X)).all()


def test_inputs_that_would_be_misread_are_refused():
    with pytest.raises(ValueError, match=r"missing_values=-999.*only NaN"):
        KerasClassifier(imputer=SimpleImputer(missing_values=-999)).fit(NUMBERS, Y)
    ids = pd.DataFrame({"words": [np.array([5, 2**32 + 5])] * 12})
    with pytest.raises(ValueError, match=r"'words' holds token ids from 5 to 4294967301"):
        KerasClassifier(SequenceEncoder(2)).fit(ids, Y)
    with pytest.raises(ValueError, match=r"inputs=.*parameters of KerasClassifier itself"):
        KerasFeatureTransformer(QUICK, inputs={"a": [0]}).fit(NUMBERS, Y)


@pytest.mark.slow
def test_tuples_and_infinity_are_categories():
    pairs = [("a", 1), ("b", 2), ("a", 2)] * 4
    column = np.empty(12, dtype=object)
    column[:] = pairs
    X = pd.DataFrame({"pair": column, "age": np.arange(12.0)})
    stack = StackedKerasClassifier(
        [("a", QUICK)], downstream=QUICK, blend=False, cv=2, categorical_features=["pair"]
    )
    assert stack.fit(X, Y).predict(X).shape == (12,)
    X = pd.DataFrame({"rate": pd.Series([0.5, np.inf, 2.0, 3.0] * 3).astype("category")})
    assert KerasClassifier(MLP(2), n_hash_buckets=2, epochs=1).fit(X, Y).predict(X).shape == (12,)


def test_codes_are_categories_in_hold_out_rows():
    X, y = load_digits(n_class=3, return_X_y=True)
    codes = KerasFeatureTransformer(KerasClassifier(MLP(4), epochs=2), features="codes", cv=2)
    downstream = KerasClassifier(MLP(4), epochs=2, early_stopping=True)
    stack = StackedKerasClassifier([("d", codes)], downstream=downstream, random_state=0)
    assert stack.fit_transform(X, y)["d__codes"].dtype == "category"
