import numpy as np
import pandas as pd
import pytest
from imblearn import FunctionSampler
from imblearn.combine import SMOTETomek
from imblearn.over_sampling import (
    ADASYN,
    SMOTE,
    SMOTEN,
    SMOTENC,
    BorderlineSMOTE,
    RandomOverSampler,
)
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import (
    NearMiss,
    RandomUnderSampler,
    TomekLinks,
)

from skstack._estimators.resampling import check_sampler, resample


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(60) % 6 == 0, "yes", "no")
    return rng.normal(size=(60, 3)).astype(np.float32), y


@pytest.fixture
def table(rows):
    X, y = rows
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(X, columns=["a", "b", "c"], index=np.arange(60) + 7)
    frame.insert(1, "job", pd.Categorical(rng.choice([1, 2, 3], 60)))
    return frame, y


class Duplicate:
    """Any object with fit_resample."""

    def fit_resample(self, X, y):
        return np.concatenate([X, X]), np.concatenate([y, y])


class Inconsistent:
    def __init__(self, make):
        self.make = make

    def fit_resample(self, X, y):
        return self.make(X, y)


# What comes out


@pytest.mark.parametrize("sampler", [SMOTE(), RandomOverSampler(), ADASYN(), BorderlineSMOTE()])
def test_classes_are_balanced_in_the_users_labels(rows, sampler):
    X, y = rows
    new = resample(sampler, X, y, random_state=0)
    assert new.X.dtype == np.float32
    assert new.y.dtype == y.dtype
    labels, counts = np.unique(new.y, return_counts=True)
    assert labels.tolist() == ["no", "yes"]
    assert abs(counts[0] - counts[1]) < 5
    assert new.sample_weight is None
    assert type(new.sampler) is type(sampler)
    assert hasattr(new.sampler, "sampling_strategy_")


def test_the_users_labels_reach_sampling_strategy(rows):
    X, y = rows
    new = resample(RandomUnderSampler(sampling_strategy={"no": 12}), X, y)
    assert (new.y == "no").sum() == 12


def test_any_object_with_fit_resample_is_accepted(rows):
    X, y = rows
    assert len(resample(Duplicate(), X, y).X) == 120
    function = FunctionSampler(func=lambda X, y: (X[:30], y[:30]))
    assert len(resample(function, X, y).y) == 30
    assert len(resample(make_pipeline(SMOTE()), X, y).y) == 100


def test_sequences_are_flattened_for_the_sampler():
    X, y = np.random.default_rng(0).normal(size=(20, 4, 2)), np.arange(20) % 4 == 0
    new = resample(RandomOverSampler(random_state=0), X, y, np.arange(20.0))
    np.testing.assert_array_equal(new.X, X[new.sampler.sample_indices_])
    assert new.X.shape == (30, 4, 2)
    assert resample(SMOTE(k_neighbors=2), X, y).X.shape == (30, 4, 2)


def test_nothing_is_changed(rows):
    X, y = rows
    before, labels, weights = X.copy(), y.copy(), np.ones(60)

    def scribble(X, y):
        X[:] = 0
        y[:] = "no"
        return X, y

    state = np.random.RandomState(0)
    drawn = state.get_state()[1].copy()
    sampler = RandomOverSampler(random_state=state)
    resample(Inconsistent(scribble), X, y)
    resample(sampler, X, y, weights)
    resample(FunctionSampler(), X, y).X[:] = 0
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_array_equal(weights, 1)
    np.testing.assert_array_equal(state.get_state()[1], drawn)
    assert not hasattr(sampler, "sampling_strategy_")


def test_missing_seeds_are_set_and_others_kept(rows):
    X, y = rows

    def draw(sampler, seed):
        return resample(sampler, X, y, random_state=seed).X

    for sampler in (SMOTE(), make_pipeline(RandomUnderSampler())):
        np.testing.assert_array_equal(draw(sampler, 1), draw(sampler, 1))
        assert not np.array_equal(draw(sampler, 1), draw(sampler, 2))
    np.testing.assert_array_equal(draw(SMOTE(random_state=5), 1), draw(SMOTE(random_state=5), 2))
    assert SMOTE().random_state is None
    assert len(draw(Duplicate(), 1)) == 120


# Tables with categories


def test_smotenc_does_not_interpolate_categories(table):
    frame, y = table
    new = resample(SMOTENC("auto", random_state=0), frame, y)
    assert new.X.dtypes.equals(frame.dtypes)
    assert list(new.X.columns) == list(frame.columns)
    assert new.X["job"].notna().all()
    assert len(new.X) == len(new.y) == 100
    assert new.X.index.tolist() == list(range(100))


@pytest.mark.parametrize(
    "sampler", [RandomOverSampler(), RandomUnderSampler(), FunctionSampler(validate=False)]
)
def test_samplers_that_select_rows_accept_categories(table, sampler):
    frame, y = table
    new = resample(sampler, frame, y)
    assert new.X.dtypes.equals(frame.dtypes)


def test_smoten_accepts_categories_only(table):
    frame, y = table
    new = resample(SMOTEN(random_state=0), frame[["job"]], y)
    assert new.X.dtypes.equals(frame[["job"]].dtypes)


@pytest.mark.parametrize("sampler", [SMOTE(), BorderlineSMOTE(), ADASYN(), SMOTETomek()])
def test_samplers_that_interpolate_are_refused_with_categories(table, sampler):
    frame, y = table
    with pytest.raises(ValueError, match=r'sampler.*job.*SMOTENC\("auto"\)'):
        resample(sampler, frame, y)
    resample(sampler, frame.drop(columns="job"), y)


def test_distance_based_samplers_are_refused_with_categories(table):
    frame, y = table
    with pytest.raises(ValueError, match=r"job.*RandomUnderSampler\(\)"):
        resample(NearMiss(), frame, y)


def test_fractional_categories_of_unknown_samplers_are_refused(table):
    frame, y = table

    def halve(X, y):
        return X.assign(job=X["job"].astype(float) / 2), y

    with pytest.raises(ValueError, match=r"job.*SMOTENC"):
        resample(Inconsistent(halve), frame, y)


# Weights


@pytest.mark.parametrize("sampler", [RandomOverSampler(), RandomUnderSampler(), TomekLinks()])
@pytest.mark.parametrize("kind", ["array", "frame"])
def test_weights_follow_copied_rows(rows, table, sampler, kind):
    X, y = table if kind == "frame" and not isinstance(sampler, TomekLinks) else rows
    weights = np.arange(60.0)
    new = resample(sampler, X, y, weights, random_state=0)
    assert len(new.sample_weight) == len(new.y) == len(new.X)
    first = X["a"].to_numpy() if hasattr(X, "iloc") else X[:, 0]
    drawn = new.X["a"].to_numpy() if hasattr(X, "iloc") else new.X[:, 0]
    where = dict(zip(first, weights, strict=True))
    assert [where[value] for value in drawn] == new.sample_weight.tolist()


@pytest.mark.parametrize(
    "sampler",
    [
        SMOTE(),
        RandomOverSampler(shrinkage=1.0),  # tells indices, but moves the rows
        SMOTETomek(),
        FunctionSampler(),
        Duplicate(),
    ],
)
def test_weights_are_refused_with_synthetic_rows(rows, sampler):
    X, y = rows
    with pytest.raises(ValueError, match=r"sample_weight.*sampler=.*RandomOverSampler"):
        resample(sampler, X, y, np.ones(60), random_state=0)
    resample(sampler, X, y, random_state=0)


def test_weights_of_another_length_are_refused(rows):
    with pytest.raises(ValueError, match="sample_weight"):
        resample(RandomOverSampler(), *rows, np.ones(59))


# Refusals


@pytest.mark.parametrize("sampler", ["smote", 3, SMOTE, object(), NearMiss])
def test_objects_without_fit_resample_are_refused(sampler):
    with pytest.raises(TypeError, match="sampler"):
        check_sampler(sampler)


def test_none_and_samplers_are_accepted():
    for sampler in (None, SMOTE(), Duplicate(), make_pipeline(SMOTE())):
        check_sampler(sampler)
    with pytest.raises(TypeError, match="None"):
        resample(None, np.eye(2), [0, 1])


def test_the_error_for_too_few_rows_contains_the_sampler_message(rows):
    X, y = rows
    with pytest.raises(ValueError, match=r"SMOTE.*10 training rows.*class yes: 2 row") as error:
        resample(SMOTE(), X[:10], y[:10])
    assert error.match("n_neighbors")
    assert "n_neighbors" in str(error.value.__cause__)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda X, y: (X[:5], y), "5 rows of X"),
        (lambda X, y: (X[:, :2], y), "expected 3 columns"),
        (lambda X, y: (X[:0], y[:0]), "0 rows"),
        (lambda X, y: (X * np.nan, y), "NaN"),
        (lambda X, y: (X, np.where(y == "no", "new", y)), "labels.*new"),
        (lambda X, y: X, "must return a pair"),
        (lambda X, y: (X, y, y), "must return a pair"),
        (lambda X, y: (X, np.column_stack([y, y])), "targets of shape"),
    ],
)
def test_inconsistent_results_are_refused(rows, make, message):
    with pytest.raises(ValueError, match=f"(?s)sampler=.*{message}"):
        resample(Inconsistent(make), *rows)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda X, y: (X[["job", "a"]], y), "columns"),
        (lambda X, y: (X.to_numpy(), y), "columns"),
        (lambda X, y: (X.assign(a=np.nan), y), "NaN.*a"),
        (lambda X, y: (X.assign(a=np.inf), y), "infinity"),
    ],
)
def test_inconsistent_tables_are_refused(table, make, message):
    with pytest.raises(ValueError, match=f"(?s)sampler=.*{message}"):
        resample(Inconsistent(make), *table)
