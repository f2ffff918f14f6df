"""Steps that read a list of texts or dicts, where a branch passes a table."""

from __future__ import annotations

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.utils import get_tags

from skstack._base.tables import is_dataframe


def refuse_vectorizers(model, X, label):
    """Raise an error if a model begins with a step that would read names of columns as texts."""
    found, frozen = _vectorizer(model)
    if found is None:
        return
    name, column = type(found).__name__, "COLUMN"
    if X.shape[1] == 1:
        column = repr(next(iter(X.columns))) if is_dataframe(X) else "0"
    remedy = f"Use make_column_transformer(({name}(...), {column})) in its place"
    if frozen:
        remedy = f"Use make_pipeline(FunctionTransformer(np.ravel), {type(model).__name__}(...))"
    raise ValueError(
        f"{label}: {name} reads a list of texts or dicts, but X is a table, also if it has one "
        f"column. {remedy}, which passes the texts of one column."
    )


def _vectorizer(model, frozen=False):
    """The vectorizer that gets X, or None, and whether it is fitted already."""
    if isinstance(model, FrozenEstimator):
        return _vectorizer(model.estimator, True)
    for part in _first_parts(model):
        found = _vectorizer(part, frozen) if hasattr(part, "fit") else (None, frozen)
        if found[0] is not None:
            return found
    return (model if _reads_lists(model) else None), frozen


def _first_parts(model):
    """The parts of an estimator that get X itself."""
    if isinstance(model, Pipeline):
        return [step for _, step in model.steps if hasattr(step, "fit")][:1]
    if isinstance(model, FeatureUnion):
        return [part for _, part in model.transformer_list]
    several = getattr(model, "estimators", None)  # of a vote or a stack
    several = several if isinstance(several, (list, tuple)) else ()
    named = [part[1] for part in several if isinstance(part, tuple) and len(part) == 2]
    return [getattr(model, "estimator", None), *named]  # of a search or a calibration


def _reads_lists(estimator):
    try:
        tags = get_tags(estimator).input_tags
    except Exception:  # estimators of others, with tags of their own kind or none
        return False
    tables = tags.one_d_array or tags.two_d_array or tags.three_d_array
    return (tags.string or tags.dict) and not tables
