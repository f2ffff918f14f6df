"""What a part of a stack cannot take is refused before any network is trained."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from _models import FIT, SMALL, binary, mixed, regression
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import SVC
from sklearn.utils import get_tags

from skstack import (
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack._training import train

NETWORK = KerasRegressor(SMALL, **FIT)
BOOSTING = HistGradientBoostingRegressor(max_iter=2)


@pytest.fixture
def trainings(monkeypatch):
    """The networks that are trained."""
    calls, original = [], train.train

    def counted(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(train, "train", counted)
    return calls


def table(kind):
    """A table of a kind that a linear model refuses, and its numeric columns."""
    X, y = regression(frame=True)
    if kind == "missing":
        X.loc[3, "b"] = np.nan
    else:
        words = np.resize([3, 1, 2] if kind == "codes" else ["x", "y", "z"], len(X))
        X["w"] = pd.Categorical(words) if kind in ("codes", "categories") else words
    if kind == "polars":
        X = pl.DataFrame(X.to_dict("list"))
    return X, y


def remedy(kind):
    if kind == "missing":
        return make_pipeline(SimpleImputer(), Ridge())
    encoder = (OneHotEncoder(handle_unknown="ignore"), ["w"])
    return make_pipeline(make_column_transformer(encoder, remainder="passthrough"), Ridge())


KINDS = {
    "strings": r"(strings|categories) in columns \['w'\]",
    "categories": r"categories in columns \['w'\]",
    "codes": r"categories in columns \['w'\]",
    "polars": r"(strings|categories) in columns \['w'\]",
    "missing": r"missing values in columns \['b'\]",
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def upstream(kind):
    return NETWORK if kind != "missing" else BOOSTING


@each_kind
def test_a_downstream_that_refuses_columns_is_found_before_training(kind, trainings):
    X, y = table(kind)
    stack = StackedKerasRegressor([("a", upstream(kind))], downstream=Ridge(), cv=2)
    with pytest.raises(ValueError, match=f"downstream Ridge does not .* {KINDS[kind]}.*Ridge\\("):
        stack.fit(X, y)
    assert not trainings


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "codes"])
@pytest.mark.parametrize("model", [Ridge(), GridSearchCV(Ridge(), {"alpha": [1, 2]})])
def test_a_branch_that_refuses_columns_is_found_before_training(model, kind, trainings):
    X, y = table(kind)
    branches = [("first", upstream(kind)), ("linear", model)]
    stack = StackedKerasRegressor(branches, downstream=Ridge(), passthrough=False, cv=2)
    with pytest.raises(ValueError, match=f"branch 'linear' .* does not .* {KINDS[kind]}"):
        stack.fit(X, y)
    assert not trainings


@each_kind
def test_what_the_error_says_works(kind):
    X, y = table(kind)
    branches = [("first", upstream(kind), ["a", "b"]), ("linear", remedy(kind))]
    stack = StackedKerasRegressor(branches, downstream=remedy(kind), cv=2).fit(X, y)
    assert np.isfinite(stack.predict(X)).all()


def test_parts_that_take_words_and_missing_values_are_not_refused():
    X, y = mixed(gap=True)
    boosting = HistGradientBoostingClassifier(max_iter=2)
    numbers = make_column_selector(dtype_include="number")
    branches = [("trees", boosting, numbers)]
    stack = StackedKerasClassifier(branches, downstream=boosting, cv=2).fit(X, y)
    assert stack.predict(X).shape == y.shape


def test_truth_values_pass_to_a_linear_model():
    X, y = regression(frame=True)
    X["member"] = X["a"] > 0
    stack = StackedKerasRegressor([("a", NETWORK)], downstream=Ridge(), cv=2).fit(X, y)
    assert np.isfinite(stack.predict(X)).all()


def test_a_trial_leaves_the_global_generator_alone():
    X, y = table("strings")
    stack = StackedKerasRegressor([("a", SGDRegressor())], downstream=Ridge(), cv=2)
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    with pytest.raises(ValueError, match="branch 'a'"):
        stack.set_params(passthrough=False).fit(X, y)
    assert np.random.random() == expected  # noqa: NPY002


def no_kernel(first, second):
    raise ValueError("no kernel")


def test_errors_of_parts_name_the_part():
    X, y = binary()
    broken = SVC(kernel=no_kernel)
    with pytest.raises(ValueError, match=r"^The branch 'broken': "):
        StackedKerasClassifier([("broken", broken)], cv=2).fit(X, y)
    good = [("good", LogisticRegression())]
    with pytest.raises(ValueError, match=r"^The downstream SVC: no kernel"):
        StackedKerasClassifier(good, downstream=broken, cv=2).fit(X, y)


# Tags and methods follow the parts ----------------------------------------------------------------


def test_tags_follow_the_parts():
    trees, linear = HistGradientBoostingClassifier(), LogisticRegression()

    def tags(branch, downstream, **params):
        return get_tags(StackedKerasClassifier([("a", branch)], downstream=downstream, **params))

    assert tags(trees, trees).input_tags.allow_nan
    assert not tags(trees, linear).input_tags.allow_nan
    assert tags(trees, linear, passthrough=False).input_tags.allow_nan
    assert not tags(linear, trees).input_tags.allow_nan
    assert not tags(trees, linear).input_tags.sparse
    assert tags(linear, linear).input_tags.sparse
    assert not tags(KerasClassifier(), linear).classifier_tags.multi_label
    assert tags(KerasClassifier(), None).classifier_tags.multi_label
    regressors = StackedKerasRegressor([("a", SGDRegressor())], downstream=Ridge())
    assert not get_tags(regressors).target_tags.multi_output
    assert get_tags(regressors.set_params(a=Ridge())).target_tags.multi_output
    assert get_tags(KerasFeatureTransformer(trees)).input_tags.allow_nan
    assert not get_tags(KerasFeatureTransformer(trees, passthrough=True)).input_tags.allow_nan


def test_what_tags_promise_about_missing_values_holds():
    X, y = binary()
    X[3, 1] = np.nan
    trees = HistGradientBoostingClassifier(max_iter=2)
    stack = StackedKerasClassifier([("a", trees)], downstream=trees, cv=2).fit(X, y)
    assert stack.predict(X).shape == y.shape
    assert KerasFeatureTransformer(trees, cv=2).fit_transform(X, y).shape == (len(X), 1)


def test_a_missing_method_has_the_cause_of_the_downstream():
    stack = StackedKerasClassifier([("a", LogisticRegression())], downstream=SVC())
    with pytest.raises(AttributeError) as error:
        stack.predict_proba  # noqa: B018
    assert "SVC" in str(error.value.__cause__)
    with pytest.raises(AttributeError) as error:
        stack.set_params(downstream=None).decision_function  # noqa: B018
    assert "KerasClassifier" in str(error.value.__cause__)


@pytest.mark.parametrize("downstream", [Ridge(), None])
def test_a_stack_predicts_float64_as_a_network_does(downstream):
    X, y = regression()
    downstream = NETWORK if downstream is None else downstream
    stack = StackedKerasRegressor([("a", Ridge())], downstream=downstream, cv=2).fit(X, y)
    assert stack.predict(X).dtype == np.float64
