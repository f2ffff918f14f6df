"""Curves of the training of networks, and features in two dimensions."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasMultiTask,
    StackedKerasClassifier,
)
from skstack.inspection import BlendDisplay, LatentDisplay, TrainingCurveDisplay
from tests._models import FIT, SMALL, binary, keras_model, mixed, regression, two_layers

X, Y = binary()


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def network(**parameters):
    return KerasClassifier(SMALL, **{**FIT, **parameters})


def lines(ax):
    return [(line.get_label(), line.get_ydata().tolist()) for line in ax.get_lines()]


def test_curves_of_a_network():
    fitted = network(early_stopping=True, metrics=["accuracy"]).fit(X, Y)
    display = TrainingCurveDisplay.from_estimator(fitted)
    assert [ax.get_ylabel() for ax in display.ax_] == ["loss", "accuracy"]
    for ax, name in zip(display.ax_, ("loss", "accuracy"), strict=True):
        assert lines(ax) == [
            ("training rows", fitted.history_[name]),
            ("hold-out rows", fitted.history_[f"val_{name}"]),
        ]
        assert ax.get_lines()[0].get_xdata().tolist() == [1, 2]
    axes = plt.subplots(1, 2)[1]
    assert display.plot(axes) is display
    assert display.ax_[0] is axes[0]
    assert display.figure_ is axes[0].figure
    with pytest.raises(ValueError, match="draws on 2"):
        display.plot(axes[0])


def test_bags_and_folds_are_thin_lines():
    bags = network(n_bags=2).fit(X, Y)
    display = TrainingCurveDisplay.from_estimator(bags)
    assert display.history is None
    assert [values for _, values in lines(display.ax_)] == bags.loss_curve_
    branches = [("a", KerasFeatureTransformer(network(), cv=3)), ("b", GaussianNB())]
    stack = StackedKerasClassifier(branches, downstream=network(), blend=False, cv=2)
    stack.fit(X, Y)
    display = TrainingCurveDisplay.from_estimator(stack, part="a")
    assert display.history == stack.upstream_[0][1].estimator_.history_
    widths = [line.get_linewidth() for line in display.ax_.get_lines()]
    assert len(set(widths[:3])) == 1
    assert widths[:3] < widths[3:]
    search = GridSearchCV(make_pipeline(StandardScaler(), stack), {}, cv=2).fit(X, Y)
    downstream = search.best_estimator_[-1].downstream_
    assert TrainingCurveDisplay.from_estimator(search).history == downstream.history_
    whole = KerasFeatureTransformer(network(), cv=2, refit=False).fit(X, Y)
    assert len(TrainingCurveDisplay.from_estimator(whole).parts) == 2
    for part, error in (("b", TypeError), ("c", ValueError)):
        with pytest.raises(error, match=f"part='{part}'"):
            TrainingCurveDisplay.from_estimator(stack, part=part)


def searched(estimator):
    return GridSearchCV(estimator, {}, cv=2)


def test_searches_and_pipelines_are_unwrapped_at_any_depth():
    nested = make_pipeline(StandardScaler(), searched(make_pipeline(StandardScaler(), network())))
    fitted = nested.fit(X, Y)
    expected = fitted[-1].best_estimator_[-1].history_
    assert TrainingCurveDisplay.from_estimator(fitted).history == expected
    branches = [
        ("search", searched(network())),
        ("pipeline", make_pipeline(StandardScaler(), searched(network()))),
    ]
    stack = StackedKerasClassifier(
        branches, downstream=make_pipeline(StandardScaler(), network()), cv=2, random_state=0
    )
    stack.set_params(blend=False).fit(X, Y)
    of_search, of_pipeline = (each.estimator_ for _, each, _ in stack.upstream_)
    for part, drawn in (
        ("downstream", stack.downstream_[-1]),
        ("search", of_search.best_estimator_),
        ("pipeline", of_pipeline.best_estimator_),
    ):
        assert TrainingCurveDisplay.from_estimator(stack, part=part).history == drawn.history_
    stack.set_params(blend="auto", search=GaussianNB(), pipeline=GaussianNB())
    outer = make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), stack)).fit(X, Y)
    blend = BlendDisplay.from_estimator(outer)
    assert blend.parts == list(outer[-1][-1].blend_weights_)


def test_a_target_may_be_named_val():
    X, amount = regression(frame=True)
    Y = pd.DataFrame({"val": amount, "other": amount > amount.mean()})
    network = KerasMultiTask(SMALL, metrics={"val": ["mae"]}, early_stopping=False, **FIT)
    for rows, labels in (
        ({}, ["training rows"]),
        ({"X_val": X, "y_val": Y}, ["training rows", "hold-out rows"]),
    ):
        display = TrainingCurveDisplay.from_estimator(network.fit(X, Y, **rows))
        panels = {ax.get_ylabel(): [line.get_label() for line in ax.lines] for ax in display.ax_}
        assert panels == {"loss": labels, "val_mae": labels}
        plt.close(display.figure_)


def test_other_estimators_have_no_curves():
    with pytest.raises(NotFittedError):
        TrainingCurveDisplay.from_estimator(network())
    with pytest.raises(TypeError, match="history of epochs"):
        TrainingCurveDisplay.from_estimator(LogisticRegression().fit(X, Y))
    with pytest.raises(ValueError, match="is for stacks"):
        TrainingCurveDisplay.from_estimator(network().fit(X, Y), part="a")


def test_a_layer_is_drawn_in_the_colours_of_classes():
    fitted = KerasClassifier(two_layers(), **FIT).fit(X, Y)
    words = np.array(["no", "yes"])[Y]
    display = LatentDisplay.from_estimator(fitted, X, words, layer="code")
    features = KerasFeatureTransformer(fitted.model_, layers="code").fit(X).transform(X)
    centred = features - features.mean(axis=0)
    assert display.points.shape == (60, 2)
    np.testing.assert_allclose(
        np.square(display.points).sum(axis=0),
        np.linalg.svd(centred, compute_uv=False)[:2] ** 2,
        rtol=1e-4,
    )
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["no", "yes"]
    no, _ = display.ax_.collections
    np.testing.assert_allclose(no.get_offsets(), display.points[Y == 0])
    share = display.explained_variance_ratio[0]
    assert display.ax_.get_xlabel() == f"component 1 ({share:.0%} of the variance)"
    ax = plt.subplots()[1]
    assert display.plot(ax).ax_ is ax


@pytest.mark.parametrize(
    ("y", "collections"),
    [
        (np.array(["a", None, "b"] * 4, dtype=object), ["unknown", "a", "b"]),
        (np.array([1.0, np.nan, 0.5] * 4), ["unknown"]),
        (np.full(12, np.nan), ["unknown"]),
    ],
)
def test_rows_without_a_value_are_grey(y, collections):
    points = np.random.default_rng(0).normal(size=(12, 2))
    display = LatentDisplay(points=points, y=y).plot()
    drawn = display.ax_.collections
    assert [each.get_label() for each in drawn][: len(collections)] == collections
    assert sum(len(each.get_offsets()) for each in drawn) == 12
    plt.close("all")


def test_transform_and_models_are_drawn():
    X, y = regression()
    display = LatentDisplay.from_estimator(KerasAutoencoder(**FIT).fit(X), X, y)
    assert len(display.figure_.axes) == 2  # a colour bar
    assert LatentDisplay.from_estimator(keras_model(), X, layer="hidden").ax_.get_legend() is None
    with pytest.raises(ValueError, match="at least 2 features"):
        LatentDisplay.from_estimator(keras_model(), X, layer="output")
    with pytest.raises(ValueError, match="at least 2 rows"):
        LatentDisplay.from_estimator(keras_model(), X[:1], layer="hidden")
    with pytest.raises(ValueError, match="elsewhere"):
        LatentDisplay.from_estimator(keras_model(), X, layer="elsewhere")
    with pytest.raises(TypeError, match="layer=None"):
        LatentDisplay.from_estimator(network().fit(*binary()), X)
    with pytest.raises(NotFittedError):
        LatentDisplay.from_estimator(network(), X, layer="code")


@pytest.mark.parametrize(
    "values",
    [pd.array([0.25, None, 7.5], dtype="Float64"), np.array([0.25, None, 7.5], dtype=object)],
    ids=["Float64", "object"],
)
def test_numbers_beside_missing_ones_colour_by_their_value(values):
    display = LatentDisplay(points=np.eye(3)[:, :2], y=values).plot()
    unknown, known = display.ax_.collections
    assert known.get_array().tolist() == [0.25, 7.5]
    assert len(unknown.get_offsets()) == 1


def test_labels_of_any_type_colour_the_points_or_are_refused_by_their_shape():
    points = np.eye(4)[:, :2]
    for labels, names in (
        ([["a"], ["b"], ["a"], ["b"]], ["a", "b"]),
        (pd.DataFrame({"y": ["a", "b", "a", "b"]}), ["a", "b"]),
        (np.array([1, "a", 1, "a"], dtype=object), ["1", "a"]),
        (pd.array([True, None, False, True], dtype="boolean"), ["unknown", "False", "True"]),
    ):
        legend = LatentDisplay(points=points, y=labels).plot().ax_.get_legend()
        assert [text.get_text() for text in legend.get_texts()] == names
    X, y = binary()
    with pytest.raises(ValueError, match=r"y has shape \(60, 2\); expected \(n_samples,\)"):
        LatentDisplay.from_estimator(keras_model(), X, np.c_[y, y], layer="hidden")


def test_categories_among_the_features_are_refused_in_words():
    X, _ = mixed()
    features = KerasFeatureTransformer(KerasAutoencoder(**FIT), passthrough=True).fit(X)
    with pytest.raises(ValueError, match="returns columns that are not numeric"):
        LatentDisplay.from_estimator(features, X)
