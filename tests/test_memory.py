"""What is computed once: features of frozen networks, and with ``memory`` whole fits.

Each hit and each miss is counted where the work is done, never by the clock.
"""

import pickle
import sys
import textwrap
import types
from concurrent.futures import ThreadPoolExecutor

import joblib
import keras
import numpy as np
import pandas as pd
import pytest
from _fresh import Program
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skstack._training.train
from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    StackedKerasClassifier,
)
from skstack._features import cache
from skstack.networks import MLP, recipe

X, y = load_breast_cancer(return_X_y=True)
X, y = X[:120, :5].astype(np.float32), y[:120]


def network(units=3, seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((5,), name="x"), keras.layers.Dense(units, name="out")]
    return keras.Sequential(layers, name="net")


@pytest.fixture(autouse=True)
def empty_memory():
    cache.FROZEN.clear()


@pytest.fixture
def passes(monkeypatch):
    """Counts passes of rows through networks."""
    from skstack._training import network

    counted = []
    outputs = network.predict.outputs
    monkeypatch.setattr(
        network.predict, "outputs", lambda *args: counted.append(1) or outputs(*args)
    )
    return counted


@pytest.fixture
def fits(monkeypatch):
    """Counts trainings of networks."""
    counted = []
    train = skstack._training.train.train

    def spy(*args, **options):
        counted.append(1)
        return train(*args, **options)

    monkeypatch.setattr(skstack._training.train, "train", spy)
    return counted


# Frozen networks, in this process ------------------------------------------------------------


def test_the_same_rows_go_through_a_frozen_network_once(passes):
    transformer = KerasFeatureTransformer(network())
    first = transformer.fit_transform(X)
    assert len(passes) == 1
    np.testing.assert_array_equal(clone(transformer).fit_transform(X), first)
    np.testing.assert_array_equal(transformer.transform(X.copy()), first)
    assert len(passes) == 1


def test_candidates_of_a_search_share_features(passes):
    pipeline = make_pipeline(KerasFeatureTransformer(network()), LogisticRegression())
    grid = {"logisticregression__C": [0.1, 1.0, 10.0]}
    GridSearchCV(pipeline, grid, cv=KFold(3), refit=False).fit(X, y)
    assert len(passes) == 6  # training and test rows of three folds


@pytest.mark.parametrize(
    "other",
    [
        lambda t, X: (t.set_params(model=network(seed=1)), X),
        lambda t, X: (t.set_params(layers="out"), X),
        lambda t, X: (t.set_params(batch_size=7), X),
        lambda t, X: (t, X + np.float32(1)),
        lambda t, X: (t, X[:60]),
        lambda t, X: (t, X[::-1]),
    ],
    ids=["weights", "layers", "batch_size", "values", "fewer rows", "order of rows"],
)
def test_changed_content_is_recomputed(passes, other):
    transformer = KerasFeatureTransformer(network())
    transformer.fit_transform(X)
    transformer, rows = other(clone(transformer), X)
    found = transformer.fit_transform(rows)
    assert len(passes) == 2
    cache.FROZEN.clear()
    np.testing.assert_array_equal(transformer.fit_transform(rows), found)


def test_files_are_identified_by_content(passes, tmp_path):
    one, same = tmp_path / "one.keras", tmp_path / "same.keras"
    network().save(one)
    same.write_bytes(one.read_bytes())
    first = KerasFeatureTransformer(one).fit_transform(X)
    np.testing.assert_array_equal(KerasFeatureTransformer(str(same)).fit_transform(X), first)
    assert len(passes) == 1
    network(seed=1).save(one)
    assert (KerasFeatureTransformer(one).fit_transform(X) != first).any()
    assert len(passes) == 2


def test_keys_depend_on_names_and_categories_but_not_on_y(passes):
    model = keras.Sequential([keras.Input((1,), name="a"), keras.layers.Dense(2)])
    frame = pd.DataFrame({"a": X[:, 0]})
    KerasFeatureTransformer(model).fit_transform(frame, y)
    KerasFeatureTransformer(model).fit_transform(frame, 1 - y)
    assert len(passes) == 1


def test_frozen_estimators_are_cached(passes):
    fitted = KerasClassifier(MLP((4,)), epochs=1, random_state=0).fit(X, y)
    expected = fitted.predict_proba(X)[:, 1:]
    passes.clear()
    for _ in range(2):
        transformer = KerasFeatureTransformer(FrozenEstimator(fitted))
        np.testing.assert_array_equal(transformer.fit_transform(X), expected)
    assert len(passes) == 1
    fitted.predict_proba(X)
    assert len(passes) == 2  # the estimator itself is as it was


def test_writing_to_features_does_not_change_the_cache():
    transformer = KerasFeatureTransformer(network(1)).fit(X)
    first = transformer.transform(X)
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(transformer.transform(X), kept)


def test_the_cache_is_bounded_and_drops_least_recently_used_entries():
    recent = cache._ArrayCache(bytes_limit=4000)
    values = {
        name: [np.full(100, number, dtype=np.float64)] for number, name in enumerate("abcdef")
    }
    for name in "abcde":
        recent.get(name, lambda: values[name])  # noqa: B023
        recent.get("a", lambda: pytest.fail("a was used last"))
        assert recent.size <= 4000
    recent.get("f", lambda: values["f"])
    computed = []
    recent.get("b", lambda: computed.append(1) or values["b"])
    assert computed == [1]
    recent.get("large", lambda: [np.zeros(1000)])
    assert recent.size <= 4000
    recent.get("large", lambda: computed.append(2) or [np.zeros(1000)])
    assert computed == [1, 2]


def test_sixteen_threads_get_the_same_bits():
    transformer = KerasFeatureTransformer(network()).fit(X)
    expected = {n: transformer.transform(X[:n]) for n in (10, 50, 120)}
    cache.FROZEN.clear()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: (n, transformer.transform(X[:n])), [10, 50, 120] * 20))
    for n, values in found:
        np.testing.assert_array_equal(values, expected[n])


# Trained networks, on disk -------------------------------------------------------------------


@recipe
def small(spec, *, units=3):
    inputs = spec.inputs()
    hidden = keras.layers.Dense(units, activation="relu", name="hidden")(spec.join(inputs))
    return keras.Model(inputs, spec.outputs(hidden))


def trained(memory, **options):
    options = {"cv": 2, "random_state": 0, **options}
    model = options.pop("model", None) or KerasClassifier(small(), epochs=1)
    return KerasFeatureTransformer(model, memory=memory, **options)


def test_a_cached_fit_is_bit_identical(fits, tmp_path):
    for options in ({}, {"layers": "hidden"}, {"refit": False}):
        plain = trained(None, **options)
        expected = plain.fit_transform(X, y), plain.transform(X)
        first = trained(str(tmp_path), **options)
        first.fit_transform(X, y)
        fits.clear()
        again = trained(str(tmp_path), **options)
        np.testing.assert_array_equal(again.fit_transform(X, y), expected[0])
        assert not fits
        np.testing.assert_array_equal(again.transform(X), expected[1])
        assert again.get_feature_names_out().tolist() == plain.get_feature_names_out().tolist()
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(again)).transform(X), expected[1])
        assert (again.estimator_ is None) == (plain.estimator_ is None)


def test_paths_and_joblib_memory_are_accepted(fits, tmp_path):
    trained(tmp_path).fit_transform(X, y)
    n = len(fits)
    trained(joblib.Memory(str(tmp_path), verbose=0)).fit_transform(X, y)
    assert len(fits) == n


@pytest.mark.parametrize(
    "other",
    [
        lambda t: t.fit_transform(X, 1 - y),
        lambda t: t.fit_transform(X + np.float32(1), y),
        lambda t: t.fit_transform(X.astype(np.float64), y),
        lambda t: t.fit_transform(X, y, sample_weight=np.arange(120) + 1.0),
        lambda t: t.fit_transform(X, y, groups=np.arange(120) // 4),
        lambda t: t.set_params(cv=3).fit_transform(X, y),
        lambda t: t.set_params(model__epochs=2).fit_transform(X, y),
        lambda t: t.set_params(model__model__units=4).fit_transform(X, y),
        lambda t: t.set_params(layers="hidden").fit_transform(X, y),
        lambda t: t.set_params(random_state=1).fit_transform(X, y),
        lambda t: t.fit_transform(pd.DataFrame(X, columns=list("abcde")), y),
        lambda t: t.fit_transform(pd.DataFrame(X, columns=list("abdce")), y),
        lambda t: t.fit(X, y),
    ],
    ids=["y", "values", "dtype", "weights", "groups", "folds", "parameter", "deep parameter",
         "layers", "seed", "names", "other names", "fit alone"],
)  # fmt: skip
def test_changed_content_is_refitted(fits, tmp_path, other):
    trained(tmp_path).fit_transform(X, y)
    trained(tmp_path).fit_transform(pd.DataFrame(X, columns=list("abcde"))[["b", "a"]], y)
    fits.clear()
    other(trained(tmp_path))
    assert fits


def test_keys_depend_on_the_code_of_a_recipe():
    def made(activation):
        def network(spec, *, units=2):
            inputs = spec.inputs()
            dense = keras.layers.Dense(units, activation=activation)(spec.join(inputs))
            return keras.Model(inputs, spec.outputs(dense))

        return KerasClassifier(recipe(network)(), epochs=1)

    keys = [
        cache.estimator_key(made(name).set_params(random_state=0))
        for name in ("relu", "tanh", "relu")
    ]
    assert keys[0] == keys[2] != keys[1]


IMPORTING = """
def importing(spec):
    import settings_of_mine

    inputs = spec.inputs()
    hidden = keras.layers.Dense(settings_of_mine.UNITS, name="hidden")(spec.join(inputs))
    return keras.Model(inputs, spec.outputs(hidden))
"""
DEFINED = {"keras": keras, "__name__": __name__}
exec(IMPORTING, DEFINED)
importing = recipe(DEFINED["importing"])


def test_keys_depend_on_constants_that_a_recipe_imports(fits, tmp_path, monkeypatch):
    settings = types.ModuleType("settings_of_mine")
    monkeypatch.setitem(sys.modules, settings.__name__, settings)
    for units, refitted in ((2, True), (2, False), (3, True)):
        settings.UNITS = units
        fits.clear()
        features = trained(tmp_path, model=KerasClassifier(importing(), epochs=1), layers="hidden")
        assert features.fit_transform(X, y).shape[1] == units
        assert bool(fits) == refitted


def table_of_two_kinds():
    """A column of numbers, and one of whole numbers as categories."""
    return pd.DataFrame({"a": X[:, 0], "b": pd.Categorical((X[:, 1] / 10).astype(int))})


def numbers_scaled(container=None):
    """A network behind a step whose output holds the second column as numbers, or as categories."""
    scaled = ColumnTransformer([("scale", StandardScaler(), ["a"])], remainder="passthrough")
    if container is not None:
        scaled.set_output(transform=container)
    return make_pipeline(scaled, KerasClassifier(MLP((3,)), epochs=2))


def same_without_memory(folder, make, frame, **metadata):
    """The result with ``memory``, which equals that without it, bit for bit."""
    kept, fresh = (make(memory).fit_transform(frame, y, **metadata) for memory in (folder, None))
    np.testing.assert_array_equal(kept, fresh)
    return kept


def test_keys_depend_on_the_container_of_outputs(tmp_path):
    frame = table_of_two_kinds()
    results = [
        same_without_memory(tmp_path, lambda m, c=c: trained(m, model=numbers_scaled(c)), frame)
        for c in (None, "pandas", None)
    ]
    assert np.abs(results[0] - results[1]).max() > 1e-3
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("where", ["container", "policy"])
def test_keys_depend_on_global_settings(where, tmp_path):
    """The container of outputs of scikit-learn, and the precision of Keras."""
    frame = table_of_two_kinds()

    def same():
        make = numbers_scaled if where == "container" else lambda: None
        return same_without_memory(tmp_path, lambda m: trained(m, model=make()), frame)

    policy = keras.config.dtype_policy()
    before = same()
    try:
        if where == "policy":
            keras.config.set_dtype_policy("mixed_bfloat16")
        container = "pandas" if where == "container" else "default"
        with config_context(transform_output=container):
            after = np.asarray(same())
    finally:
        keras.config.set_dtype_policy(policy)
    assert not np.array_equal(before, after)


def test_keys_depend_on_metadata_requests(tmp_path):
    """Of the parts of an estimator, which are no parameters of it."""

    def vote(memory, requested):
        parts = [
            (name, GaussianNB().set_fit_request(sample_weight=own))
            for name, own in (("a", requested), ("b", True))
        ]
        return trained(memory, model=VotingClassifier(parts, voting="soft"))

    weights = np.where(y == 1, 9.0, 1.0)
    with config_context(enable_metadata_routing=True):
        results = [
            same_without_memory(tmp_path, lambda m, own=own: vote(m, own), X, sample_weight=weights)
            for own in (True, False)
        ]
    assert np.abs(results[0] - results[1]).max() > 1e-3


def test_keys_depend_on_versions(fits, tmp_path, monkeypatch):
    trained(tmp_path).fit_transform(X, y)
    fits.clear()
    monkeypatch.setattr(cache, "versions", lambda: ("another",))
    trained(tmp_path).fit_transform(X, y)
    assert fits


class Silent(keras.callbacks.Callback):
    pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"random_state": None}, "random_state=None"),
        ({"model": KerasClassifier(MLP((2,)), epochs=1, callbacks=[Silent()])}, "callbacks"),
    ],
    ids=["open seed", "callbacks"],
)
def test_random_results_are_not_stored(fits, tmp_path, capsys, options, message):
    trained(tmp_path, verbose=1, **options).fit_transform(X, y)
    assert message in capsys.readouterr().out
    n = len(fits)
    trained(tmp_path, **options).fit_transform(X, y)
    assert len(fits) == 2 * n
    assert not list(tmp_path.rglob("output.pkl"))


def entries(folder):
    return sorted(folder.rglob("output.pkl"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:-200] + bytes([content[-200] ^ 1]) + content[-199:],
        lambda content: content[:1500] + b"\0\xff\0" + content[1503:],
        lambda content: pickle.dumps(np.zeros(100, dtype=np.uint8)),
        lambda content: pickle.dumps("something else"),
    ],
    ids=["truncated", "empty", "a bit near the end", "three bytes", "zeros", "another object"],
)
def test_a_damaged_entry_is_recomputed_and_replaced(fits, tmp_path, damage):
    expected = trained(tmp_path).fit_transform(X, y)
    (entry,) = entries(tmp_path)
    entry.write_bytes(damage(entry.read_bytes()))
    fits.clear()
    np.testing.assert_array_equal(trained(tmp_path).fit_transform(X, y), expected)
    assert len(fits) == 3
    np.testing.assert_array_equal(trained(tmp_path).fit_transform(X, y), expected)
    assert len(fits) == 3


def test_a_cached_fit_is_an_independent_copy(tmp_path):
    trained(tmp_path).fit_transform(X, y)
    one, other = trained(tmp_path), trained(tmp_path)
    one.fit_transform(X, y)
    for name, values in one.estimator_.network_.variables.items():
        one.estimator_.network_.variables[name] = values * 0
    other.fit_transform(X, y)
    assert any(values.any() for values in other.estimator_.network_.variables.values())


def test_the_size_of_a_folder_is_bounded(tmp_path, monkeypatch):
    trained(tmp_path).fit_transform(X, y)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    monkeypatch.setattr(cache, "FOLDER_BYTES", int(2.5 * size))
    for seed in range(1, 6):
        trained(tmp_path, random_state=seed).fit_transform(X, y)
    assert 1 <= len(entries(tmp_path)) <= 3


def test_features_of_frozen_networks_are_stored_too(passes, tmp_path):
    model = network()
    KerasFeatureTransformer(model, memory=str(tmp_path)).fit_transform(X)
    cache.FROZEN.clear()
    KerasFeatureTransformer(model, memory=str(tmp_path)).fit_transform(X)
    assert len(passes) == 1


def test_branches_of_a_stack_are_cached(fits, tmp_path):
    stack = StackedKerasClassifier(
        [("a", trained(tmp_path, random_state=None))],
        downstream=LogisticRegression(),
        random_state=0,
    )
    expected = stack.fit(X, y).predict_proba(X)
    fits.clear()
    stack = clone(stack).set_params(downstream__C=2.0)
    assert (stack.fit(X, y).predict_proba(X) != expected).any()
    assert not fits


PROGRAM = """
    import os, signal, sys
    import numpy as np
    from sklearn.datasets import load_breast_cancer
    from skstack import KerasClassifier, KerasFeatureTransformer
    from skstack.networks import MLP
    X, y = load_breast_cancer(return_X_y=True)
    X, y = X[:120, :5].astype(np.float32), y[:120]
    if sys.argv[2] == "killed while training":
        import skstack._training.train
        skstack._training.train.train = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "killed while writing":
        from joblib import _store_backends
        dump = _store_backends.numpy_pickle.dump
        def half(value, file, **options):
            file.write(b"half of it"); file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        _store_backends.numpy_pickle.dump = half
    transformer = KerasFeatureTransformer(
        KerasClassifier(MLP((3,)), epochs=1), memory=sys.argv[1], cv=2, random_state=0
    )
    np.save(sys.argv[3], transformer.fit_transform(X, y))
"""


def start(folder, how, out):
    return Program(textwrap.dedent(PROGRAM), folder, how, out)


def test_processes_may_share_a_folder_and_may_be_killed(fits, tmp_path):
    folder = tmp_path / "cache"
    killed = [
        start(folder, f"killed while {what}", tmp_path / "no") for what in ("training", "writing")
    ]
    assert [process.wait() for process in killed] == [-9, -9]
    both = [start(folder, "", tmp_path / f"{number}.npy") for number in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    first, second = (np.load(tmp_path / f"{number}.npy") for number in range(2))
    np.testing.assert_array_equal(first, second)
    own = trained(folder, model=KerasClassifier(MLP((3,)), epochs=1)).fit_transform(X, y)
    np.testing.assert_array_equal(own, first)
    assert not fits
    assert len(entries(folder)) == 1


@pytest.mark.parametrize("memory", [3, KerasAutoencoder, object()])
def test_invalid_memory_is_refused(memory):
    with pytest.raises((ValueError, TypeError), match="memory"):
        KerasFeatureTransformer(memory=memory).fit(X)
