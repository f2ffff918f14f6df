"""Networks around a student's: with its teacher's prediction, or with a second output."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from skstack._training.isolation import build
from skstack._training.keras_model import member_layers
from skstack.networks._autoencoder import latent_layer, layer_shapes
from skstack.networks._heads import (
    WrappingBlueprint,
    cached_by_key,
    flat,
    is_target_units,
    last_operation,
    without_activation,
)
from skstack.networks._spec import Spec
from skstack.preprocessing._blocks import Block

TEACHER = "teacher_prediction"  # name of an input
HEAD = "teacher_head"
PROJECTION = "teacher_projection"


@dataclass(frozen=True)
class NetworkFacts:
    """Properties of a network that a teacher's term in the loss depends on.

    ``shape`` is that of one row of the output, ``activation`` the final one if it can be removed,
    ``layers`` maps layers to output shapes. ``hidden`` is the layer before the last one, or the
    latent layer of an autoencoder; ``inputs`` are names, or None if the input is a plain array.
    """

    shape: tuple
    activation: str | None
    layers: dict
    hidden: str | None
    inputs: tuple | None


@cached_by_key
def facts_of(blueprint, latent):
    """The facts of a network; ``latent`` is whether it is an autoencoder."""
    model = build(blueprint)
    by_name = isinstance(getattr(model, "input", None), dict)
    shapes = layer_shapes(model)
    hidden = latent_layer(model) if latent else _before_last(model)
    inputs = tuple(model.input) if by_name else None
    shape = tuple(model.outputs[0].shape[1:]) if getattr(model, "outputs", None) else ()
    activation = without_activation(model)[1] if by_name else None
    return NetworkFacts(shape, activation, shapes, hidden, inputs)


def _before_last(model):
    """Name of the layer before the last one.

    Activations, the mean of members and the units of a regressor's target do not count.
    """
    last, before = last_operation(model) if getattr(model, "outputs", None) else None, None
    while last is not None:
        try:
            tensor = last.input
        except (AttributeError, ValueError):
            return None
        layers = [
            layer
            for layer in model.layers
            if not isinstance(layer, keras.layers.InputLayer) and _returns(layer, tensor)
        ]
        before = layers[0] if layers else None
        follows = isinstance(last, keras.layers.Activation | keras.layers.Softmax)
        if isinstance(last, keras.layers.GlobalAveragePooling1D):
            follows = bool(member_layers(model))
        last = before if follows or is_target_units(last) else None
    return None if before is None else before.name


def _returns(layer, tensor):
    try:
        return layer.output is tensor
    except (AttributeError, ValueError):
        return False


def _joined(tensors, name):
    return keras.layers.Concatenate(name=name, dtype="float32")(list(map(flat, tensors)))


@dataclass(frozen=True)
class WithProjection(WrappingBlueprint):
    """A network with the inner layer ``layer`` as second output, projected to ``width``."""

    blueprint: Any
    layer: str
    width: int

    @functools.cached_property
    def key(self):
        """See ``RecipeBlueprint.key``."""
        return self._key(self.layer, self.width)

    def build(self):
        """Build the network."""
        model = self.blueprint.build()
        inner = flat(model.get_layer(self.layer).output)
        model, _ = without_activation(model)
        if inner.shape[1] != self.width:
            inner = keras.layers.Dense(self.width, name=PROJECTION, dtype="float32")(inner)
        outputs = _joined([model.outputs[0], inner], "taught")
        return _in_order(keras.Model(model.input, outputs), model)


@dataclass(frozen=True)
class WithTeacher(WrappingBlueprint):
    """A network with its teacher's prediction as an input, or with the teacher inside."""

    blueprint: Any
    mode: str
    weight: float | None = None  # of the teacher in a blend
    inside: Any = None  # blueprint of the teacher
    units: tuple | None = None  # scale and mean of the targets that the inner teacher predicts
    activation: str | None = None  # of the head
    both: bool = False  # whether the network's own prediction is an output beside the head's
    width: int | None = None  # of the teacher's output if that does not predict y
    standardize: bool = False  # whether that output is standardised

    @functools.cached_property
    def key(self):
        """See ``RecipeBlueprint.key``."""
        inside = None if self.inside is None else self.inside.key
        if self.inside is not None and inside is None:
            return None
        output = self.width, self.standardize
        return self._key(
            self.mode, self.weight, inside, self.units, self.activation, self.both, *output
        )

    def build(self):
        """Build the network."""
        model = self.blueprint.build()
        activation = None
        if self.mode == "head":
            model, activation = without_activation(model)
        own = model.outputs[0]
        inputs = dict(model.input)
        if self.inside is None:
            if TEACHER in inputs:
                raise ValueError(f"X has a column or an input named {TEACHER!r}: rename it.")
            shape = own.shape[1:] if self.width is None else (self.width,)
            teacher_output = inputs[TEACHER] = keras.Input(shape, name=TEACHER)
            if self.standardize:
                block = Block(TEACHER, "numeric", shape, None, "float32")
                teacher_output = Spec((block,), "regression", 1).join({TEACHER: teacher_output})
        else:
            teacher_output = self._teacher_output(inputs, activation is not None)
        if self.mode == "blend":
            outputs = self._blend(own, teacher_output)
        else:
            joined = _joined([own, teacher_output], "with_teacher")
            final = None if self.both and activation else self.activation
            head = keras.layers.Dense(own.shape[-1], final, name=HEAD, dtype="float32")
            outputs = head(joined)
            if self.both:
                outputs = _joined([own, outputs], "taught")
        return _in_order(keras.Model(inputs, outputs, name=model.name), model)

    def _blend(self, own, teacher_output):
        weighted = ((own, 1.0 - self.weight, "own"), (teacher_output, self.weight, "teacher"))
        parts = [
            keras.layers.Rescaling(weight, name=f"{name}_share", dtype="float32")(tensor)
            for tensor, weight, name in weighted
        ]
        return keras.layers.Add(name="blend", dtype="float32")(parts)

    def _teacher_output(self, inputs, logits):
        predicts = self.width is None
        with keras.name_scope("teacher"):  # so that no two variables have the same path
            teacher = self.inside.build() if predicts else self.inside.unfrozen()
        if logits and predicts:
            teacher, _ = without_activation(teacher)
        nested = keras.Model(teacher.input, teacher.outputs[0], name="teacher")
        output = nested({name: inputs[name] for name in teacher.input})
        if self.units is None:
            return output
        scale, mean = self.units
        return keras.layers.Rescaling(
            [1.0 / s for s in scale],
            [-m / s for s, m in zip(scale, mean, strict=True)],
            name="teacher_units",
            dtype="float32",
        )(output)


def _in_order(extended, model):
    """Refuse a network whose variables cannot be assigned to those of ``model`` by path."""
    own = {id(variable) for variable in model.variables}
    order = [variable for variable in extended.variables if id(variable) in own]
    others = {variable.path for variable in extended.variables if id(variable) not in own}
    paths = [variable.path for variable in model.variables]
    moved = any(one is not other for one, other in zip(order, model.variables, strict=True))
    if (len(set(paths)) < len(paths) and moved) or others & set(paths):
        raise ValueError(
            f"The layers of {model.name!r} and those of the teacher have the same names. Give the "
            "layers of its nested models unique names."
        )
    return extended


def initial_head(units, width=None):
    """Initial weights of the head: the mean of both predictions, or the network's own prediction.

    The latter if the teacher's output, of ``width`` columns, does not predict y. Its weights of
    0 learn from the first step on: their gradient is that output times the error.
    """
    own = np.eye(units, dtype=np.float32)
    kernel = [0.5 * own, 0.5 * own] if width is None else [own, np.zeros((width, units), own.dtype)]
    return {f"{HEAD}/kernel": np.vstack(kernel), f"{HEAD}/bias": np.zeros(units, np.float32)}
