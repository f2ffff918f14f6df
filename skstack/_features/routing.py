"""Metadata routing: which sub-estimator receives which keyword arguments."""

from __future__ import annotations

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import (
    MetadataRequest,
    MetadataRouter,
    MethodMapping,
    get_routing_for_object,
    process_routing,
)

from skstack._base.params import is_network_estimator
from skstack._base.sklearn import accepts_fit_parameter, refuse_metadata, routing_enabled
from skstack._base.tables import check_groups, check_weights
from skstack._estimators.autoencoder import KerasAutoencoder
from skstack._features.cross_fit import Metadata

_FITS = ("fit", "fit_transform")


def given_metadata(X, sample_weight, groups, params):
    """The keyword arguments that are not None; weights and groups validated."""
    metadata = {
        "sample_weight": check_weights(sample_weight, X),
        "groups": check_groups(groups, X),
        **params,
    }
    return {name: value for name, value in metadata.items() if value is not None}


def _mapping(callee):
    mapping = MethodMapping()
    for caller in _FITS:
        mapping.add(caller=caller, callee=callee)
    return mapping


def add_estimator(router, name, estimator, *, callee="fit", unset=None, predicts=False):
    """Add a sub-estimator whose ``fit`` or ``fit_transform`` is called in both of the router's own.

    ``unset`` gives the meaning of requests that are not set; by default, passing such metadata
    raises an error. ``predicts`` is whether the router's ``predict`` calls that of the
    sub-estimator.
    """
    routing = get_routing_for_object(estimator)
    if isinstance(routing, MetadataRequest):
        method = getattr(routing, callee)
        for parameter, alias in (unset or {}).items():
            if method.requests.get(parameter, False) is None:
                method.add_request(param=parameter, alias=alias)
    mapping = _mapping(callee)
    if predicts:
        mapping.add(caller="predict", callee="predict")
    router.add(**{name: routing}, method_mapping=mapping)


def add_splitter(router, cv):
    """Add the splitter; groups always reach it, or the check that folds keep them together."""
    routing = get_routing_for_object(cv)
    if routing.split.requests.get("groups") is None:
        routing.split.add_request(param="groups", alias=True)
    router.add(splitter=routing, method_mapping=_mapping("split"))


def routing_of_features(transformer):
    """The MetadataRouter of a KerasFeatureTransformer: ``model``, ``steps``, ``splitter``."""
    router = MetadataRouter(owner=transformer)
    steps, model = _parts(transformer.model)
    if steps is not None:
        add_estimator(router, "steps", steps, callee="fit_transform")
    unset = {"X_val": False, "y_val": False}
    if model is None:
        # No other object could request it.
        model, unset = KerasAutoencoder(), {**unset, "sample_weight": True}
    if _is_trained(model):
        add_estimator(router, "model", model, unset=unset)
    add_splitter(router, transformer.cv)
    return router


def routed_features(transformer, caller, X, sample_weight, groups, params):
    """Distribute the metadata of a fit over the parts of a KerasFeatureTransformer."""
    metadata = given_metadata(X, sample_weight, groups, params)
    if routing_enabled():
        routed = process_routing(transformer, caller, **metadata)
        return Metadata(
            split=routed["splitter"]["split"],
            steps=routed.get("steps", {}).get("fit_transform", {}),
            fit=routed.get("model", {}).get("fit", {}),
        )
    refuse_metadata(params, transformer, caller)
    steps, model = _parts(transformer.model)
    if (
        _is_trained(model)
        and "sample_weight" in metadata
        and not accepts_fit_parameter(model, "sample_weight")
    ):
        raise ValueError(
            f"sample_weight was passed, but {type(model).__name__} does not accept it."
        )
    ours = model is None or is_network_estimator(model)
    fit = {name: value for name, value in metadata.items() if name != "groups" or ours}
    split = {"groups": groups} if "groups" in metadata else {}
    return Metadata(split=split, steps=_weights_of_steps(steps, metadata), fit=fit)


def _weights_of_steps(steps, metadata):
    """Weights for the steps that accept them; none if a sampler changes the rows."""
    steps = [] if steps is None or "sample_weight" not in metadata else steps.steps
    if any(hasattr(step, "fit_resample") for _, step in steps):
        return {}
    return {
        f"{name}__sample_weight": metadata["sample_weight"]
        for name, step in steps
        if hasattr(step, "fit") and accepts_fit_parameter(step, "sample_weight")
    }


def _parts(model):
    """The steps before the last of a Pipeline, or None, and the last step."""
    if not isinstance(model, Pipeline):
        return None, model
    return (model[:-1] if len(model) > 1 else None), model.steps[-1][1]


def _is_trained(model):
    return hasattr(model, "get_params") and not isinstance(model, FrozenEstimator)
