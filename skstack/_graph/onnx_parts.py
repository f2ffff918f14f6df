"""Estimators of scikit-learn as parts of an ONNX file.

Keras cannot hold trees. In the network that is converted, the predictions of such a part are an
input, and the table that it reads is an output; `insert` then puts the nodes of the part between
the two. `boosting_nodes` and `forest_nodes` write trees; linear models and ``GradientBoosting*``
are converted by skl2onnx, which ignores missing values in trees and fails on
HistGradientBoosting.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops
from sklearn.base import is_classifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import (
    ElasticNet,
    ElasticNetCV,
    Lasso,
    LassoCV,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeCV,
)
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)
from sklearn.utils import get_tags

from skstack._base.sklearn import boosting_of, forest_of
from skstack._graph.categories import category_index, category_readers
from skstack._graph.formulas import Classes
from skstack._graph.tables import (
    concatenate,
    function_layer,
    is_far,
    layer_name,
    numbers_of,
    warn_of_float32,
)

_BOOSTING = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
_FORESTS = (
    RandomForestClassifier,
    RandomForestRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)
_GRADIENT_BOOSTING = (GradientBoostingClassifier, GradientBoostingRegressor)
_LINEAR = (
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeCV,
    Lasso,
    LassoCV,
    ElasticNet,
    ElasticNetCV,
)
ACCEPTED = ", ".join(cls.__name__ for cls in (*_BOOSTING, *_FORESTS, *_GRADIENT_BOOSTING, *_LINEAR))

# An estimator is compared with its nodes on this number of rows.
_N_ROWS = 256
_TOLERANCE = 1e-5
_ML_OPSET = 3

_PARTS = contextvars.ContextVar("estimators of the ONNX file that is written", default=None)
_PROFILE = contextvars.ContextVar(
    "profile of the columns that a branch was fitted on", default=None
)


@dataclass
class OnnxPart:
    """An estimator in the file, the table that it reads and the tensor of its predictions."""

    estimator: Any
    label: str
    key: str
    table: Any
    profile: Any
    output: Any = None


@contextlib.contextmanager
def onnx_parts():
    """Context in which estimators of scikit-learn are collected in the list that it returns."""
    token = _PARTS.set([])
    try:
        yield _PARTS.get()
    finally:
        _PARTS.reset(token)


@contextlib.contextmanager
def on_profile(profile):
    """Context in which estimators are compared on rows of this profile."""
    token = _PROFILE.set(profile)
    try:
        yield
    finally:
        _PROFILE.reset(token)


def writes_onnx():
    """Whether estimators of scikit-learn are accepted as parts."""
    return _PARTS.get() is not None


def is_onnx_part(estimator):
    """Whether a file that is written may hold the estimator beside networks."""
    kinds = (*_BOOSTING, *_FORESTS, *_GRADIENT_BOOSTING, *_LINEAR)
    return writes_onnx() and type(estimator) in kinds


def part_readers(estimator, indices, label):
    """What an estimator reads of X; see `GraphPart._column_readers`."""
    _check(estimator, label)
    categories = boosting_of(estimator).categories if _is_boosting(estimator) else {}
    allow_nan = get_tags(estimator).input_tags.allow_nan
    yield from category_readers(indices, categories, allow_nan)


def _is_boosting(estimator):
    return isinstance(estimator, _BOOSTING)


def _check(estimator, label):
    """Refuse what the nodes cannot compute."""
    several = getattr(estimator, "n_outputs_", 1) > 1
    if several and is_classifier(estimator):
        _refuse(estimator, label, "it predicts several labels; fit it on one")


def _refuse(estimator, label, why):
    raise ValueError(
        f"{type(estimator).__name__} (the part {label!r}) cannot become part of an ONNX file: "
        f"{why}."
    )


def onnx_packages():
    """The packages onnx and onnxruntime; an ImportError if one is missing."""
    try:
        import onnx
        import onnxruntime
        import tf2onnx  # noqa: F401  Keras converts with it
    except ImportError as error:
        raise ImportError(
            f"export(format='onnx') needs a package that is not installed ({error}): "
            "pip install 'skstack[onnx]'."
        ) from error
    return onnx, onnxruntime


def _converter():
    """What converts linear models and ``GradientBoosting*``: a function, and the type of inputs."""
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError as error:
        raise ImportError(
            "export(format='onnx') of linear models and GradientBoosting* needs a package that is "
            f"not installed ({error}): pip install 'skstack[onnx]'."
        ) from error
    return convert_sklearn, FloatTensorType


# The network around the parts -----------------------------------------------------------------


def part_output(estimator, table, label):
    """Predictions of an estimator as an input of the network; the part is collected."""
    _check(estimator, label)
    if isinstance(estimator, (*_GRADIENT_BOOSTING, *_LINEAR)):
        _converter()
    parts = _PARTS.get()
    if _is_boosting(estimator):
        _warn_of_far_thresholds(estimator, label)
        rows = _boosting_table(estimator, table, label)
    else:
        rows = numbers_of(table, range(len(table.columns)), f"{label}_columns", label)
    key = layer_name(f"onnx_part_{len(parts)}")
    if is_classifier(estimator):
        width = len(estimator.classes_)
    elif isinstance(estimator, _LINEAR):
        width = len(np.atleast_2d(estimator.coef_))
    else:
        width = getattr(estimator, "n_outputs_", 1)
    output = keras.Input((width,), name=key)
    parts.append(OnnxPart(estimator, label, key, rows, _PROFILE.get(), output))
    return Classes(output) if is_classifier(estimator) else output


def _warn_of_far_thresholds(estimator, label):
    """Warn of columns whose thresholds are the same in float32; forests convert X to it."""
    by_column = collections.defaultdict(list)
    for column, threshold in _thresholds(estimator):
        if np.isfinite(threshold):
            by_column[column].append(threshold)
    names = getattr(estimator, "feature_names_in_", None)
    far = [
        f"x{column}" if names is None else str(names[column])
        for column, values in sorted(by_column.items())
        if is_far(np.abs(values).max(), np.std(values))
    ]
    if far:
        kind = type(estimator).__name__
        warn_of_float32(f"{kind} (the part {label!r}) compares", far)


def with_parts(inputs, output, parts, name):
    """The network whose further inputs and outputs belong to the parts."""
    named = inputs if isinstance(inputs, dict) else {inputs.name: inputs}
    named = {**named, **{part.key: part.output for part in parts}}
    outputs = dict(output) if isinstance(output, dict) else {"output_0": output}
    outputs |= {f"{part.key}_table": part.table for part in parts}
    # A tensor that is both input and output would have one name for two.
    outputs = {
        key: function_layer(f"{key}_as_is", [tensor], lambda x: ops.multiply(x, 1.0))
        if any(tensor is each for each in named.values())
        else tensor
        for key, tensor in outputs.items()
    }
    return keras.Model(named, outputs, name=name)


def _boosting_table(estimator, table, label):
    """Columns of a table as numbers; for categories their index, see `category_index`."""
    categories = boosting_of(estimator).categories
    if not categories:
        return numbers_of(table, range(len(table.columns)), f"{label}_columns", label)
    tensors = []
    for index in range(len(table.columns)):
        own = f"{label}_column_{index}"
        if index in categories:
            tensors.append(category_index(table, index, categories[index], own, label))
        else:
            tensors.append(numbers_of(table, [index], own, label))
    return concatenate(tensors, f"{label}_columns")


# Nodes of the parts ---------------------------------------------------------------------------


@dataclass
class _Nodes:
    """Nodes and constants that compute ``output`` from the input ``x``."""

    nodes: list
    constants: list
    output: str


def part_nodes(part, opset):
    """The nodes of a part, compared with its estimator."""
    estimator = part.estimator
    if _is_boosting(estimator):
        fragment = boosting_nodes(estimator)
    elif isinstance(estimator, _FORESTS):
        fragment = forest_nodes(estimator)
    else:
        fragment = _converted(estimator, part.label, part.table.shape[1], opset)
    _compare(part, fragment, opset)
    return fragment


def boosting_nodes(estimator):
    """Trees, baseline and link of a HistGradientBoosting estimator."""
    onnx, _ = onnx_packages()
    make, constant = onnx.helper.make_node, onnx.numpy_helper.from_array
    boosting = boosting_of(estimator)
    nodes, constants, tables = [], [], ["x"]
    trees, width = boosting.trees, estimator.n_features_in_
    looked_up: dict[int, Any] = {}
    for tree in trees:
        for node in tree.left_categories:
            column = boosting.columns[tree.feature[node]]
            goes_left = _goes_left(tree, node, len(boosting.categories[column]))
            looked_up.setdefault(column, {}).setdefault(goes_left.tobytes(), goes_left)
    feature_of = {}  # by column and set of categories
    for column, sets in looked_up.items():
        name = f"categories_{column}"
        # 0 for categories that go left, so that one comparison serves all splits.
        lookup = 1.0 - np.array(list(sets.values()), dtype=np.float32).T
        constants += [
            constant(np.array([column], dtype=np.int64), f"{name}_index"),
            constant(np.array([-1], dtype=np.int64), f"{name}_flat"),
            constant(lookup, f"{name}_table"),
        ]
        nodes += [
            make("Gather", ["x", f"{name}_index"], [f"{name}_column"], axis=1),
            make("Reshape", [f"{name}_column", f"{name}_flat"], [f"{name}_row"]),
            make("Cast", [f"{name}_row"], [f"{name}_code"], to=onnx.TensorProto.INT64),
            make("Gather", [f"{name}_table", f"{name}_code"], [f"{name}_sides"], axis=0),
        ]
        tables.append(f"{name}_sides")
        for key in sets:
            feature_of[column, key] = width
            width += 1
    if len(tables) > 1:
        nodes.append(make("Concat", tables, ["features"], axis=1))

    def split(tree, node):
        column = boosting.columns[tree.feature[node]]
        if node not in tree.left_categories:
            return column, float32_at_most(tree.threshold[node])
        goes_left = _goes_left(tree, node, len(boosting.categories[column]))
        return feature_of[column, goes_left.tobytes()], 0.5

    k = len(boosting.baseline)
    nodes.append(_ensemble(trees, split, "features" if len(tables) > 1 else "x", "raw", k))
    constants.append(constant(boosting.baseline.astype(np.float32)[None], "baseline"))
    nodes.append(make("Add", ["raw", "baseline"], ["sum"]))
    if boosting.link == "log":
        nodes.append(make("Exp", ["sum"], ["y"]))
    elif boosting.link == "multinomial_logit":
        nodes.append(make("Softmax", ["sum"], ["y"], axis=1))
    elif boosting.link == "logit":
        constants.append(constant(np.float32(1.0), "one"))
        nodes += [
            make("Sigmoid", ["sum"], ["second"]),
            make("Sub", ["one", "second"], ["first"]),
            make("Concat", ["first", "second"], ["y"], axis=1),
        ]
    else:
        nodes.append(make("Identity", ["sum"], ["y"]))
    return _Nodes(nodes, constants, "y")


def _goes_left(tree, node, n_categories):
    """Which categories go left at a node; then an unseen value and a missing one."""
    left = np.isin(np.arange(n_categories + 2), list(tree.left_categories[node]))
    left[n_categories:] = tree.missing_left[node]
    return left


def forest_nodes(estimator):
    """The mean of trees."""
    trees = forest_of(estimator)

    def split(tree, node):
        return int(tree.feature[node]), float32_at_most(tree.threshold[node])

    return _Nodes([_ensemble(trees, split, "x", "y", trees[0].values.shape[1])], [], "y")


def float32_at_most(threshold):
    """The largest float32 that is at most a threshold: float32 rows go where they went before."""
    with np.errstate(over="ignore"):
        rounded = np.float32(threshold)
    if float(rounded) > threshold:
        rounded = np.nextafter(rounded, np.float32(-np.inf))
    return float(rounded)


def _ensemble(trees, split, source, output, n_outputs):
    """One node with the sum of trees; ``split`` returns feature and threshold of a node."""
    onnx, _ = onnx_packages()
    columns = collections.defaultdict(list)
    for number, tree in enumerate(trees):
        for node in range(len(tree.feature)):
            leaf = bool(tree.is_leaf[node])
            feature, threshold = (0, 0.0) if leaf else split(tree, node)
            values = {
                "nodes_treeids": number,
                "nodes_nodeids": node,
                "nodes_featureids": int(feature),
                "nodes_values": threshold,
                "nodes_modes": "LEAF" if leaf else "BRANCH_LEQ",
                "nodes_truenodeids": 0 if leaf else int(tree.left[node]),
                "nodes_falsenodeids": 0 if leaf else int(tree.right[node]),
                "nodes_missing_value_tracks_true": int(not leaf and tree.missing_left[node]),
            }
            for name, value in values.items():
                columns[name].append(value)
            for target, weight in enumerate(tree.values[node] if leaf else ()):
                columns["target_treeids"].append(number)
                columns["target_nodeids"].append(node)
                columns["target_ids"].append(tree.first + target)
                columns["target_weights"].append(float(weight))
    return onnx.helper.make_node(
        "TreeEnsembleRegressor",
        [source],
        [output],
        domain="ai.onnx.ml",
        n_targets=n_outputs,
        **columns,
    )


def _converted(estimator, label, width, opset):
    """The nodes that skl2onnx writes."""
    convert, tensor_type = _converter()
    options = {}
    if is_classifier(estimator):
        # Only probabilities are used, and classes may be of a type that ONNX lacks.
        estimator = copy.copy(estimator)
        estimator.classes_ = np.arange(len(estimator.classes_))
        options[id(estimator)] = {"zipmap": False}
    try:
        model = convert(
            estimator,
            initial_types=[("x", tensor_type([None, width]))],
            target_opset={"": opset, "ai.onnx.ml": _ML_OPSET},
            options=options,
        )
    except Exception as error:
        _refuse(estimator, label, f"skl2onnx refuses it ({error})")
    graph = model.graph
    return _Nodes(_needed(graph.node, graph.output[-1].name), list(graph.initializer),
                  graph.output[-1].name)  # fmt: skip


def _needed(nodes, output):
    """The nodes that an output depends on."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    return kept[::-1]


def insert(model, parts):
    """Put the nodes of the parts into a model between their tables and their predictions."""
    graph = model.graph
    opsets = {each.domain: each.version for each in model.opset_import}
    for part in parts:
        fragment = part_nodes(part, opsets[""])
        names = {"x": f"{part.key}_table", fragment.output: part.key, "": ""}
        own = names.setdefault
        for constant in fragment.constants:
            constant.name = own(constant.name, f"{part.key}/{constant.name}")
            graph.initializer.append(constant)
        for node in fragment.nodes:
            node.name = f"{part.key}/{node.name or node.output[0]}"
            node.input[:] = [own(name, f"{part.key}/{name}") for name in node.input]
            node.output[:] = [own(name, f"{part.key}/{name}") for name in node.output]
            graph.node.append(node)
        for values, name in ((graph.input, part.key), (graph.output, f"{part.key}_table")):
            (position,) = [i for i, value in enumerate(values) if value.name == name]
            del values[position]
    if "ai.onnx.ml" not in opsets:
        (added,) = [model.opset_import.add()]
        added.domain, added.version = "ai.onnx.ml", _ML_OPSET
    _sort(graph)


def _sort(graph):
    """Put each node after those that compute its inputs."""
    ready = {value.name for value in [*graph.input, *graph.initializer]} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        later = []
        for node in waiting:
            if set(node.input) <= ready:
                ready |= set(node.output)
                ordered.append(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise RuntimeError(f"no order of the nodes {[node.name for node in later]}")
        waiting = later
    del graph.node[:]
    graph.node.extend(ordered)


# The comparison -------------------------------------------------------------------------------


def _compare(part, fragment, opset):
    """Refuse a part whose nodes compute anything but its predictions."""
    onnx, onnxruntime = onnx_packages()
    estimator = part.estimator
    table, X = _rows(part)
    value = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph(
        fragment.nodes,
        part.key,
        [value("x", shape=[None, table.shape[1]])],
        [value(fragment.output, shape=[None, None])],
        fragment.constants,
    )
    opsets = [
        onnx.helper.make_opsetid("", opset),
        onnx.helper.make_opsetid("ai.onnx.ml", _ML_OPSET),
    ]
    # Not newer than what the runtime knows.
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        (found,) = session.run(None, {"x": table})
    except Exception as error:  # its exceptions have no common class
        why = str(error).strip().partition("\n")[0]
        _refuse(estimator, part.label, f"onnxruntime cannot run its nodes ({why})")
    if is_classifier(estimator):
        expected, scale = estimator.predict_proba(X), 1.0
    else:
        expected = np.asarray(estimator.predict(X)).reshape(len(table), -1)
        scale = float(np.abs(expected).max()) or 1.0
    worst = float(np.abs(found - expected).max()) / scale
    if not worst <= _TOLERANCE:
        _refuse(
            estimator,
            part.label,
            f"in float32 its predictions differ by {worst:.1e}; {_TOLERANCE} is accepted",
        )


def _rows(part):
    """Rows as the nodes read them, and as the estimator does."""
    estimator, rng = part.estimator, np.random.default_rng(0)
    categories = boosting_of(estimator).categories if _is_boosting(estimator) else {}
    values = [rng.choice(each, _N_ROWS) for each in _values_of_columns(part, rng)]
    table = np.array(values, dtype=np.float32).T
    if _takes_nan(estimator):
        table[rng.random(table.shape) < 0.1] = np.nan
    raw = {column: table[:, column].astype(np.float64) for column in range(table.shape[1])}
    for column, known in categories.items():
        codes = rng.integers(len(known) + 2, size=_N_ROWS)
        table[:, column] = codes
        codes = np.where(codes < len(known), codes, -1)
        raw[column] = pd.Categorical.from_codes(codes, categories=known)
    X = pd.DataFrame(raw)
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        return table, X.set_axis(names, axis=1)
    if any(isinstance(value, str) for known in categories.values() for value in known):
        return table, X.astype(object)
    return table, np.column_stack([np.asarray(X[column], dtype=np.float64) for column in X])


def _takes_nan(estimator):
    """Whether an estimator accepts missing values; forests do depending on their criterion."""
    if not get_tags(estimator).input_tags.allow_nan or _is_boosting(estimator):
        return _is_boosting(estimator)
    try:
        estimator.predict(np.full((1, estimator.n_features_in_), np.nan))
    except ValueError:
        return False
    return True


def _values_of_columns(part, rng):
    """Values to compare on, by column: thresholds, their neighbours, and the profile's range."""
    width = part.table.shape[1]
    thresholds = [[] for _ in range(width)]
    for column, threshold in _thresholds(part.estimator):
        if np.isfinite(threshold):
            thresholds[column].append(float32_at_most(threshold))
    names = getattr(part.estimator, "feature_names_in_", [f"x{index}" for index in range(width)])
    known = () if part.profile is None else part.profile.names
    for name, values in zip(names, thresholds, strict=True):
        at = np.array(values, dtype=np.float32)
        near = [np.nextafter(at, np.float32(sign * np.inf)) for sign in (-1, 1)]
        drawn = rng.normal(size=64)
        if str(name) in known:
            index = known.index(str(name))
            drawn = rng.uniform(part.profile.minimum[index], part.profile.maximum[index], 64)
        yield np.concatenate([at, *near, drawn]).astype(np.float32)


def _thresholds(estimator):
    """Column and threshold of each split of numbers."""
    if _is_boosting(estimator):
        boosting = boosting_of(estimator)
        for tree in boosting.trees:
            for node in np.flatnonzero(~tree.is_leaf):
                if node not in tree.left_categories:
                    yield boosting.columns[tree.feature[node]], tree.threshold[node]
        return
    for member in np.ravel(getattr(estimator, "estimators_", estimator)).tolist():
        tree = getattr(member, "tree_", None)
        for node in () if tree is None else np.flatnonzero(tree.children_left >= 0):
            yield tree.feature[node], tree.threshold[node]
