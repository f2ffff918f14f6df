"""Metadata of the rows, such as weights and groups, for each sub-estimator of a stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import MetadataRouter, process_routing

from skstack._base.params import is_keras_model, is_path
from skstack._base.sklearn import (
    accepts_fit_parameter,
    add_own_score,
    refuse_metadata,
    routing_enabled,
    take_metadata,
)
from skstack._features.cross_fit import Metadata
from skstack._features.transformer import (
    KerasFeatureTransformer,
    add_estimator,
    add_splitter,
    given_metadata,
    routed_features,
)
from skstack._stack.branches import branch_list, branch_of


@dataclass(frozen=True)
class StackMetadata:
    """Metadata of the rows for each sub-estimator of a stack."""

    splitter: dict
    branches: dict[str, Metadata]
    scaler: dict
    downstream: dict
    groups: Any = None

    def of(self, X, rows, **validation):
        """The metadata of some rows of X, with rows to monitor."""

        def take(metadata):
            return take_metadata(X, metadata, rows)

        return StackMetadata(
            take(self.splitter),
            {name: metadata.of(X, rows) for name, metadata in self.branches.items()},
            take(self.scaler),
            {**take(self.downstream), **validation},
            **take({"groups": self.groups}),
        )


def routing_of_stack(stack):
    """The MetadataRouter of a stack: branches by name, ``scaler``, ``downstream``, ``splitter``.

    A sub-estimator that the stack creates itself, because the parameter is None, accepts all
    metadata.
    """
    router = MetadataRouter(owner=stack)
    for name, upstream, _ in [] if stack.upstream is None else branch_list(stack):
        if _routes_itself(upstream):
            add_estimator(router, name, branch_of(stack, name, upstream), callee="fit_transform")
        elif not _is_frozen(upstream):
            add_estimator(router, name, upstream, unset={"X_val": False, "y_val": False})
    if hasattr(stack.scaler, "fit"):
        add_estimator(router, "scaler", stack.scaler)
    if stack.downstream is None:
        requests = dict.fromkeys(("sample_weight", "X_val", "y_val"), True)
        add_estimator(router, "downstream", stack._network_type(), unset=requests)
    else:
        add_estimator(router, "downstream", stack.downstream, predicts=True)
    add_splitter(router, stack.cv)
    add_own_score(router, stack)
    return router


def routed_stack(stack, caller, X, sample_weight, groups, X_val, y_val, params):
    """Distribute the metadata of ``fit`` over the sub-estimators of a stack."""
    if (X_val is None) != (y_val is None):
        missing = "X_val" if X_val is None else "y_val"
        raise ValueError(f"X_val and y_val must be passed together, but {missing} is None.")
    metadata = given_metadata(X, sample_weight, groups, params)
    common = {name: metadata[name] for name in ("sample_weight", "groups") if name in metadata}
    validation = {} if X_val is None else {"X_val": X_val, "y_val": y_val}
    if not routing_enabled():
        refuse_metadata(params, stack, caller)
        branches = {
            name: routed_features(
                branch_of(stack, name, upstream), "fit", X, sample_weight, groups, {}
            )
            for name, upstream, _ in branch_list(stack)
        }
        weights = {name: metadata[name] for name in ("sample_weight",) if name in metadata}
        downstream = {**weights, **validation}
        _refuse_unsupported(stack.downstream, downstream)
        split = {"groups": metadata["groups"]} if "groups" in metadata else {}
        return StackMetadata(split, branches, weights, downstream, metadata.get("groups"))

    routed = process_routing(stack, caller, **metadata, **validation)
    split = routed["splitter"]["split"]
    branches = {}
    for name, upstream, _ in branch_list(stack):
        if stack.upstream is None:
            branches[name] = Metadata(split=split, fit=common)
        elif _routes_itself(upstream):
            own = routed[name]["fit_transform"]
            branches[name] = routed_features(
                branch_of(stack, name, upstream), "fit_transform", X, **_named(own)
            )
        else:
            fit = {} if _is_frozen(upstream) else routed[name]["fit"]
            branches[name] = Metadata(split=split, fit=fit)
    scaler = common if stack.scaler == "standard" else routed.get("scaler", {}).get("fit", {})
    scaler = {name: value for name, value in scaler.items() if name != "groups"}
    return StackMetadata(
        split, branches, scaler, routed["downstream"]["fit"], metadata.get("groups")
    )


def _named(metadata):
    """Keyword arguments of ``routed_features``."""
    metadata = dict(metadata)
    common = {name: metadata.pop(name, None) for name in ("sample_weight", "groups")}
    return {**common, "params": metadata}


def _routes_itself(upstream):
    return isinstance(upstream, (KerasFeatureTransformer, Pipeline))


def _is_frozen(upstream):
    return is_path(upstream) or is_keras_model(upstream) or upstream == "drop"


def _refuse_unsupported(downstream, metadata):
    if downstream is None:
        return
    for name in ("X_val", "sample_weight"):
        if name in metadata and not accepts_fit_parameter(downstream, name):
            raise ValueError(
                f"{name} was passed, but the fit of the downstream {type(downstream).__name__} "
                "does not accept it. With metadata routing enabled, steps of a Pipeline can "
                "request it."
            )
