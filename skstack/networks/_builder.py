"""Functions that build a whole network, as written for scikeras."""

from __future__ import annotations

import inspect

import numpy as np

from skstack._base.keras_objects import copied, customs_of
from skstack.networks._adopted import ModelBlueprint, without_drawing
from skstack.networks._cloning import is_builtin_keras
from skstack.networks._recipe import Recipe

# Arguments that scikeras fills in.
_FILLED_IN = ("meta", "compile_kwargs")
_TARGET_TYPES = {
    "binary": "binary",
    "multiclass": "multiclass",
    "multilabel": "multilabel-indicator",
}


class _Meta(dict):
    """The part of scikeras' ``meta`` that follows from the spec."""

    def __missing__(self, key):
        raise KeyError(
            f"meta[{key!r}] is not known before training in skstack; meta holds {sorted(self)}."
        )


def _meta(spec):
    if len(spec.blocks) != 1:
        raise ValueError(
            "The network was written for one array as input, but X has the blocks "
            f"{[block.name for block in spec.blocks]}."
        )
    shape = spec.blocks[0].shape
    meta = {
        "X_dtype_": np.dtype(spec.blocks[0].dtype),
        "X_shape_": (None, *shape),
        "n_features_in_": shape[0],
        "n_outputs_expected_": 1,
    }
    if spec.task == "regression":
        several = spec.n_outputs > 1
        target_type = "continuous-multioutput" if several else "continuous"
        return _Meta(meta, target_type_=target_type, n_outputs_=spec.n_outputs)
    return _Meta(
        meta,
        target_type_=_TARGET_TYPES[spec.task],
        n_classes_=2 if spec.task == "binary" else spec.n_outputs,
        n_outputs_=1,
    )


def _serialized(value):
    """Built-in optimizers, losses and metrics as plain dicts.

    Importing scikeras changes how Keras' classes pickle: only scikeras could load them.
    """
    if isinstance(value, (list, tuple)):
        return [_serialized(item) for item in value]
    if hasattr(value, "get_config") and is_builtin_keras(value) and not customs_of(value):
        import keras

        return keras.saving.serialize_keras_object(value)
    return value


def _new(value):
    """A new optimizer, loss or metric without the state of `value`."""
    if isinstance(value, (list, tuple)):
        return [_new(item) for item in value]
    if isinstance(value, dict) and "class_name" in value:
        import keras

        return keras.saving.deserialize_keras_object(value)
    return copied(value)


class BuilderRecipe(Recipe):
    """A function that builds a whole network, including the output layer, and its arguments.

    ``compile_kwargs`` are for networks that the function leaves uncompiled. The arguments of the
    function, except ``meta`` and ``compile_kwargs``, are parameters of the recipe.
    """

    @classmethod
    def of(cls, builder, compile_kwargs, arguments):
        """A recipe whose built-in ``compile_kwargs`` are serialised."""
        serialized = {name: _serialized(value) for name, value in compile_kwargs.items()}
        return cls(builder, compile_kwargs=serialized, **arguments)

    def __init__(self, builder, *, compile_kwargs=None, **arguments):
        self.builder = builder
        self.compile_kwargs = compile_kwargs
        for name, value in _completed(builder, arguments).items():
            setattr(self, name, value)

    @staticmethod
    def arguments_of(builder):
        """Signature parameters of a function that are parameters of the recipe, by name."""
        return {
            name: parameter
            for name, parameter in inspect.signature(builder).parameters.items()
            if name not in _FILLED_IN
        }

    def get_params(self, deep=True):
        """Parameters of the recipe, including the function's arguments."""
        names = ["builder", "compile_kwargs", *self.arguments_of(self.builder)]
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params):
        """Set parameters of the recipe."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(
                    f"The network has no parameter {name!r}; it accepts {list(known)}."
                )
            setattr(self, name, value)
        return self

    def build(self, spec):
        """Build and compile the network, as scikeras does."""
        import keras

        accepted = inspect.signature(self.builder).parameters
        arguments = {name: getattr(self, name) for name in self.arguments_of(self.builder)}
        compile_kwargs = {name: _new(value) for name, value in (self.compile_kwargs or {}).items()}
        if "meta" in accepted:
            arguments["meta"] = _meta(spec)
        if "compile_kwargs" in accepted:
            arguments["compile_kwargs"] = compile_kwargs
        model = self.builder(**arguments)
        if not isinstance(model, keras.Model):
            raise TypeError(
                f"{self.builder!r} must return a keras.Model; it returned {type(model).__name__}."
            )
        if not model.compiled and compile_kwargs:
            model.compile(**compile_kwargs)
        return model


def _completed(builder, arguments):
    """All arguments of a function, with their defaults."""
    known = BuilderRecipe.arguments_of(builder)
    values = {}
    for name, parameter in known.items():
        if hasattr(BuilderRecipe, name) or name == "builder" or "__" in name:
            raise TypeError(f"{builder!r} cannot have an argument called {name!r}.")
        if name in arguments:
            values[name] = arguments[name]
        elif parameter.default is parameter.empty:
            raise TypeError(f"{builder!r} needs a value for {name!r}.")
        else:
            values[name] = parameter.default
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise TypeError(f"{builder!r} has no parameters {unknown}; it accepts {list(known)}.")
    return values


class BuilderBlueprint:
    """A function that builds a whole network, and the spec to build for."""

    continued = False
    learns_raw_targets = True

    def __init__(self, recipe, spec):
        self.recipe = recipe
        self._requested = spec
        self._example = None
        self.spec = self._built().spec

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "_example"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._example = None

    def _adapted(self):
        return ModelBlueprint(self.recipe.build(self._requested), self._requested)

    def _built(self):
        """One network of the function, to read its compile settings."""
        if self._example is None:
            self._example = without_drawing(self._adapted)()
        return self._example

    @property
    def loss(self):
        """See ``ModelBlueprint.loss``."""
        return self._built().loss

    @property
    def optimizer(self):
        """See ``ModelBlueprint.optimizer``."""
        return self._built().optimizer

    @property
    def metrics(self):
        """See ``ModelBlueprint.metrics``."""
        return self._built().metrics

    def build(self):
        """Build the network with inputs by block name and the activation that it lacks."""
        return self._adapted().build()

    @property
    def key(self):
        """See ``RecipeBlueprint.key``."""
        from skstack._training.fingerprint import Unknown, fingerprint, fingerprint_value

        params = self.recipe.get_params()
        builder = params.pop("builder")
        if "compile_kwargs" not in inspect.signature(builder).parameters:
            del params["compile_kwargs"]
        try:
            values = tuple((name, fingerprint_value(value)) for name, value in params.items())
            return ("builder", fingerprint(builder), values, self._requested)
        except Unknown:
            return None
