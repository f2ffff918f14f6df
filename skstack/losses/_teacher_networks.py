"""Networks around a student's own: with its teacher beside it, or with a second output."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from skstack._base.lru_cache import LRUCache
from skstack._training.network import Network
from skstack.networks._blueprints import latent_layer
from skstack.networks._heads import final_activation

TEACHER = "teacher_prediction"  # the input that takes it
HEAD = "teacher_head"
PROJECTION = "teacher_projection"
_ACTIVATIONS = ("softmax", "sigmoid")
_FACTS: LRUCache = LRUCache(64)


@dataclass(frozen=True)
class Facts:
    """What is known of a network that was built.

    Attributes
    ----------
    shape : tuple of int
        Of one row of its output.
    activation : {"softmax", "sigmoid"} or None
        What it ends with, where it can be taken off.
    layers : dict of str to tuple of int
        Shapes of one row of what layers return.
    hidden : str or None
        The layer whose output the last one takes in; of an autoencoder its latent layer.
    inputs : tuple of str, or None
        Names of its inputs; None where it does not take them by name.
    """

    shape: tuple
    activation: str | None
    layers: dict
    hidden: str | None
    inputs: tuple | None


def facts_of(blueprint, variables, *, latent=False):
    """Look at a network; once for all of a blueprint.

    Parameters
    ----------
    blueprint : blueprint
    variables : dict of str to ndarray
    latent : bool, default=False
        Whether it is an autoencoder.

    Returns
    -------
    Facts
    """
    if blueprint.key is None:
        return _look_at(blueprint, variables, latent)
    return _FACTS.get((blueprint.key, latent), lambda: _look_at(blueprint, variables, latent))


def _look_at(blueprint, variables, latent):
    model = Network(blueprint, variables).build()
    by_name = isinstance(getattr(model, "input", None), dict)
    return Facts(
        shape=tuple(model.outputs[0].shape[1:]) if getattr(model, "outputs", None) else (),
        activation=_without_activation(model)[1] if by_name else None,
        layers=_layer_shapes(model),
        hidden=latent_layer(model) if latent else _before_last(model),
        inputs=tuple(model.input) if by_name else None,
    )


def _layer_shapes(model):
    shapes = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        try:
            shapes[layer.name] = tuple(layer.output.shape[1:])
        except (AttributeError, ValueError):  # called more than once, or it has several
            continue
    return shapes


def _last(model):
    operations = getattr(model, "operations", model.layers)
    name = model.output_names[0] if hasattr(model, "output_names") else model.layers[-1].name
    return next((operation for operation in operations if operation.name == name), None)


def _before_last(model):
    """Name of the layer that feeds the last one; an activation by itself is none."""
    wanted, found = _last(model) if getattr(model, "outputs", None) else None, None
    while wanted is not None:
        try:
            taken = wanted.input
        except (AttributeError, ValueError):
            return None
        before = [
            layer
            for layer in model.layers
            if not isinstance(layer, keras.layers.InputLayer) and _returns(layer, taken)
        ]
        found = before[0] if before else None
        bare = isinstance(wanted, keras.layers.Activation | keras.layers.Softmax)
        wanted = found if bare else None
    return None if found is None else found.name


def _returns(layer, tensor):
    try:
        return layer.output is tensor
    except (AttributeError, ValueError):
        return False


def _without_activation(model):
    """The model without its last activation, and its name; (model, None) where it stays."""
    last = _last(model)
    name = final_activation(model)
    own = type(last).__module__.partition(".")[0] == "keras" and not isinstance(last, keras.Model)
    if not own or name not in _ACTIVATIONS:
        return model, None
    try:
        taken = last.input
    except (AttributeError, ValueError):  # called more than once
        return model, None
    if callable(getattr(last, "activation", None)):
        last.activation = keras.activations.linear
        return keras.Model(model.input, model.outputs[0], name=model.name), name
    if getattr(last, "axis", -1) != -1:
        return model, None
    return keras.Model(model.input, taken, name=model.name), name


class _Around:
    """Common to blueprints around another: what that was compiled with."""

    @property
    def loss(self):
        """Of the network inside."""
        return self.blueprint.loss

    @property
    def optimizer(self):
        """Of the network inside."""
        return self.blueprint.optimizer

    def _key(self, *settings):
        inner = self.blueprint.key
        return None if inner is None else (type(self).__name__, inner, *settings)


def _flat(tensor):
    return tensor if len(tensor.shape) == 2 else keras.layers.Flatten()(tensor)


def _joined(tensors, name):
    return keras.layers.Concatenate(name=name, dtype="float32")(list(map(_flat, tensors)))


@dataclass(frozen=True)
class WithoutActivation(_Around):
    """A network that gives the log-odds behind its probabilities, one table for a `Lesson`."""

    blueprint: Any

    @functools.cached_property
    def key(self):
        """As for all blueprints."""
        return self._key()

    def build(self):
        """Build it.

        Returns
        -------
        keras.Model
        """
        model, _ = _without_activation(self.blueprint.build())
        return keras.Model(model.input, _flat(model.outputs[0]), name=model.name)


@dataclass(frozen=True)
class WithProjection(_Around):
    """A network with a second output: an inner layer, projected where widths differ.

    Parameters
    ----------
    blueprint : blueprint
    layer : str
    width : int
        Of what the teacher's layer gives.
    """

    blueprint: Any
    layer: str
    width: int

    @functools.cached_property
    def key(self):
        """As for all blueprints."""
        return self._key(self.layer, self.width)

    def build(self):
        """Build it.

        Returns
        -------
        keras.Model
        """
        model = self.blueprint.build()
        inner = _flat(model.get_layer(self.layer).output)
        model, _ = _without_activation(model)
        if inner.shape[1] != self.width:
            inner = keras.layers.Dense(self.width, name=PROJECTION, dtype="float32")(inner)
        found = keras.Model(model.input, _joined([model.outputs[0], inner], "taught"))
        return _in_order(found, model)


@dataclass(frozen=True)
class WithTeacher(_Around):
    """A network that also takes its teacher's prediction, or holds the teacher.

    Parameters
    ----------
    blueprint : blueprint
    mode : {"blend", "head"}
    weight : float, default=None
        The teacher's share of a blend.
    inside : blueprint, default=None
        Of a teacher that is part of the network. None: its prediction is an input.
    units : tuple, default=None
        Scale and mean of targets, tuples of float, that a teacher inside gives in y's units.
    activation : {"softmax", "sigmoid"}, default=None
        Of the head.
    both : bool, default=False
        Whether the network's own output stands beside that of the head, for a `Lesson`.
    """

    blueprint: Any
    mode: str
    weight: float | None = None
    inside: Any = None
    units: tuple | None = None
    activation: str | None = None
    both: bool = False

    @functools.cached_property
    def key(self):
        """As for all blueprints."""
        inside = None if self.inside is None else self.inside.key
        if self.inside is not None and inside is None:
            return None
        return self._key(self.mode, self.weight, inside, self.units, self.activation, self.both)

    def build(self):
        """Build it.

        Returns
        -------
        keras.Model
        """
        model = self.blueprint.build()
        activation = None
        if self.mode == "head":
            model, activation = _without_activation(model)
        own = model.outputs[0]
        inputs = dict(model.input)
        if self.inside is None:
            if TEACHER in inputs:
                raise ValueError(f"X has a column or an input named {TEACHER!r}: rename it.")
            given = inputs[TEACHER] = keras.Input(own.shape[1:], name=TEACHER)
        else:
            given = self._inside(inputs, activation is not None)
        if self.mode == "blend":
            outputs = self._blend(own, given)
        else:
            joined = _joined([own, given], "with_teacher")
            end = None if self.both and activation else self.activation
            dense = keras.layers.Dense(own.shape[-1], end, name=HEAD, dtype="float32")
            outputs = dense(joined)
            if self.both:
                outputs = _joined([own, outputs], "taught")
        return _in_order(keras.Model(inputs, outputs, name=model.name), model)

    def _blend(self, own, given):
        shares = ((own, 1.0 - self.weight, "own"), (given, self.weight, "teacher"))
        parts = [
            keras.layers.Rescaling(share, name=f"{name}_share", dtype="float32")(tensor)
            for tensor, share, name in shares
        ]
        return keras.layers.Add(name="blend", dtype="float32")(parts)

    def _inside(self, inputs, as_log_odds):
        with keras.name_scope("teacher"):  # for no two variables may have one path
            teacher = self.inside.build()
        if as_log_odds:
            teacher, _ = _without_activation(teacher)
        nested = keras.Model(teacher.input, teacher.outputs[0], name="teacher")
        given = nested({name: inputs[name] for name in teacher.input})
        if self.units is None:
            return given
        scale, mean = self.units
        return keras.layers.Rescaling(
            [1.0 / s for s in scale],
            [-m / s for s, m in zip(scale, mean, strict=True)],
            name="teacher_units",
            dtype="float32",
        )(given)


def _in_order(found, model):
    """Refuse a graph whose variables, of equal paths, come in another order than before."""
    own = {id(variable) for variable in model.variables}
    order = [variable for variable in found.variables if id(variable) in own]
    others = {variable.path for variable in found.variables if id(variable) not in own}
    paths = [variable.path for variable in model.variables]
    moved = any(one is not other for one, other in zip(order, model.variables, strict=True))
    if (len(set(paths)) < len(paths) and moved) or others & set(paths):
        raise ValueError(
            f"The layers of {model.name!r} cannot be told apart by name beside those of a "
            "teacher. Give the layers of its inner models names of their own."
        )
    return found


def head_start(units):
    """Weights with which a head begins: the mean of both predictions."""
    half = 0.5 * np.eye(units, dtype=np.float32)
    return {f"{HEAD}/kernel": np.vstack([half, half]), f"{HEAD}/bias": np.zeros(units, np.float32)}
