"""Functions that build a whole network, as they are written for scikeras."""

from __future__ import annotations

import inspect

import numpy as np

from skstack.networks._adopted import ModelBlueprint, without_drawing
from skstack.networks._cloning import is_builtin_keras
from skstack.networks._recipe import Recipe

# What scikeras hands to a function that asks for it.
_HANDED = ("meta", "compile_kwargs")
_TARGET_TYPES = {
    "binary": "binary",
    "multiclass": "multiclass",
    "multilabel": "multilabel-indicator",
}


class _Meta(dict):
    """What scikeras tells a function of the data, as far as the spec knows it."""

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


def _packed(thing):
    """Keras' own optimizers, losses and metrics as plain dicts.

    Importing scikeras teaches Keras' classes to pickle as what only scikeras can load.
    """
    if isinstance(thing, (list, tuple)):
        return [_packed(item) for item in thing]
    if hasattr(thing, "get_config") and is_builtin_keras(thing):
        import keras

        return keras.saving.serialize_keras_object(thing)
    return thing


def _fresh(thing):
    """Make an optimizer, loss or metric anew: they may hold state."""
    if isinstance(thing, (list, tuple)):
        return [_fresh(item) for item in thing]
    if isinstance(thing, dict) and "class_name" in thing:
        import keras

        return keras.saving.deserialize_keras_object(thing)
    if hasattr(thing, "get_config") and hasattr(thing, "variables"):
        return type(thing).from_config(thing.get_config())
    return thing


class BuilderRecipe(Recipe):
    """A function that builds a whole network, output layer and all, with its arguments.

    Parameters
    ----------
    builder : callable
        Returns a ``keras.Model``, compiled or not. Arguments called ``meta`` and
        ``compile_kwargs`` get what scikeras hands to them.

    compile_kwargs : dict, default=None
        What a network is compiled with that the function left uncompiled; objects, or Keras'
        serialised form of them.

    **arguments : dict
        The function's other arguments, which are parameters of the recipe; those left out have
        the function's defaults.

    Raises
    ------
    TypeError
        If the function takes no such argument, or needs one more.
    """

    @classmethod
    def of(cls, builder, compile_kwargs, arguments):
        """Make a recipe whose ``compile_kwargs`` are plain dicts where they are Keras' own."""
        packed = {name: _packed(part) for name, part in compile_kwargs.items()}
        return cls(builder, compile_kwargs=packed, **arguments)

    def __init__(self, builder, *, compile_kwargs=None, **arguments):
        self.builder = builder
        self.compile_kwargs = compile_kwargs
        for name, value in _completed(builder, arguments).items():
            setattr(self, name, value)

    @staticmethod
    def arguments_of(builder):
        """The arguments of a function that are parameters of the recipe, by name."""
        return {
            name: parameter
            for name, parameter in inspect.signature(builder).parameters.items()
            if name not in _HANDED
        }

    def get_params(self, deep=True):
        """Get parameters: the function's arguments among them.

        Parameters
        ----------
        deep : bool, default=True
            Without effect.

        Returns
        -------
        dict of str to object
            Parameters by name.
        """
        names = ["builder", "compile_kwargs", *self.arguments_of(self.builder)]
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params):
        """Set parameters.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        self : BuilderRecipe
            This recipe.

        Raises
        ------
        ValueError
            For a name that does not exist.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(
                    f"The network has no parameter {name!r}; it accepts {list(known)}."
                )
            setattr(self, name, value)
        return self

    def build(self, spec):
        """Build and compile the network, as scikeras does.

        Parameters
        ----------
        spec : Spec
            What the function learns of the data in ``meta``.

        Returns
        -------
        keras.Model

        Raises
        ------
        TypeError
            If the function returns something else.
        """
        import keras

        asked = inspect.signature(self.builder).parameters
        arguments = {name: getattr(self, name) for name in self.arguments_of(self.builder)}
        compile_kwargs = {name: _fresh(part) for name, part in (self.compile_kwargs or {}).items()}
        if "meta" in asked:
            arguments["meta"] = _meta(spec)
        if "compile_kwargs" in asked:
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
    """All arguments of a function, the defaults filled in."""
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
        raise TypeError(f"{builder!r} takes no {unknown}; it accepts {list(known)}.")
    return values


class BuilderBlueprint:
    """A function that builds a whole network, and the spec that it is asked to build for.

    Parameters
    ----------
    recipe : BuilderRecipe

    spec : Spec
        What is asked for.

    Attributes
    ----------
    spec : Spec
        What the network does; see ``ModelBlueprint``.

    continued : bool
        False: every training starts from new weights.

    learns_raw_targets : bool
        True: the function knows nothing of standardised targets.
    """

    continued = False
    learns_raw_targets = True

    def __init__(self, recipe, spec):
        self.recipe = recipe
        self._asked = spec
        self._example = None
        self.spec = self._looked_at().spec

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "_example"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._example = None

    def _adapted(self):
        return ModelBlueprint(self.recipe.build(self._asked), self._asked)

    def _looked_at(self):
        if self._example is None:
            self._example = without_drawing(self._adapted)()
        return self._example

    @property
    def task(self):
        """What the network is for; see ``Spec``."""
        return self.spec.task

    @property
    def units(self):
        """Width of the network's output."""
        return self.spec.units

    @property
    def loss(self):
        """The loss that the network was compiled with; see ``ModelBlueprint``."""
        return self._looked_at().loss

    @property
    def optimizer(self):
        """A new optimizer with the settings of the one that it was compiled with."""
        return self._looked_at().optimizer

    @property
    def metrics(self):
        """The metrics that it was compiled with; see ``ModelBlueprint``."""
        return self._looked_at().metrics

    def build(self):
        """Have the network built, with inputs by block name and the activation that it lacks.

        Returns
        -------
        keras.Model
        """
        return self._adapted().build()

    def start_variables(self):
        """Return None: new weights are drawn."""
        return None

    @property
    def key(self):
        """Hashable that only blueprints of the same network share; None where it is unknown."""
        from skstack._training.fingerprint import Unknown, fingerprint, fingerprint_value

        params = self.recipe.get_params()
        builder = params.pop("builder")
        if "compile_kwargs" not in inspect.signature(builder).parameters:
            del params["compile_kwargs"]
        try:
            values = tuple((name, fingerprint_value(value)) for name, value in params.items())
            return ("builder", fingerprint(builder), values, self._asked)
        except Unknown:
            return None
