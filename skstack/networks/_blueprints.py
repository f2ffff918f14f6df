"""A recipe with a spec: what training needs to make a network."""

# The narrow layer of an autoencoder, and the way back from it.

from __future__ import annotations

import math
import traceback
from dataclasses import dataclass
from typing import Any

from skstack.networks._autoencoder import Autoencoder
from skstack.networks._cloning import is_builtin_keras
from skstack.networks._mlp import MLP
from skstack.networks._sequence_encoder import SequenceEncoder


def _says_enough(error):
    """Whether one of our own checks raised it, which name parameters."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    ours = str(frame.f_globals.get("__name__", "")).partition(".")[0] == "skstack"
    return ours and isinstance(error, (ValueError, TypeError))


class RecipeBlueprint:
    """A recipe and the spec that it is asked to build for.

    Parameters
    ----------
    recipe : Recipe
        Anything with ``build(spec)`` and ``get_params``.

    spec : Spec

    Attributes
    ----------
    continued : bool
        False: every training starts from new weights.

    learns_raw_targets : bool
        False: targets are standardised for it.

    loss, optimizer, metrics : None
        Recipes leave them to the estimator.
    """

    continued = False
    learns_raw_targets = False
    loss = None
    optimizer = None
    metrics = None

    def __init__(self, recipe, spec):
        self.recipe = recipe
        self.spec = spec

    def __repr__(self):
        return f"{type(self).__name__}({self.recipe!r})"

    @property
    def task(self):
        """What the network is for; see ``Spec``."""
        return self.spec.task

    @property
    def units(self):
        """Width of the network's output."""
        return self.spec.units

    def build(self):
        """Build the network, with inputs by block name, and check its shapes.

        Returns
        -------
        keras.Model

        Raises
        ------
        ValueError
            If the recipe's network has other inputs or outputs than the spec, or is compiled.
        """
        import keras

        name = type(self.recipe).__name__
        try:
            network = self.recipe.build(self.spec)
        except Exception as error:  # whatever a user's function may raise
            if _says_enough(error):
                raise
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"The recipe {name}() failed with the parameters {self.recipe.get_params()}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(network, keras.Model):
            raise TypeError(
                f"The recipe {name}() must return a keras.Model; it returned "
                f"{type(network).__name__}."
            )
        if network.compiled:
            raise ValueError(
                f"The recipe {name}() returned a compiled keras.Model. Leave compile out and pass "
                "optimizer, loss and metrics to the estimator."
            )
        if not getattr(network, "inputs", None):
            raise ValueError(
                f"The recipe {name}() must return a functional keras.Model(inputs, outputs); it "
                f"returned a {type(network).__name__} without known inputs."
            )
        expected = {block.name: (None, *block.shape) for block in self.spec.blocks}
        found = {tensor.name: tuple(tensor.shape) for tensor in network.inputs}
        if found != expected:
            raise ValueError(
                f"The recipe {name}() must return a network with the inputs {expected}, those of "
                f"spec.inputs(); it has {found}."
            )
        shapes = [tuple(tensor.shape) for tensor in network.outputs]
        if shapes != [self.spec.output_shape]:
            raise ValueError(
                f"The recipe {name}() must return a network with one output of shape "
                f"{self.spec.output_shape}, as spec.outputs(x) makes it; it has {shapes}."
            )
        if isinstance(getattr(network, "input", None), dict):
            return network
        if not is_builtin_keras(network):
            raise ValueError(
                f"The recipe {name}() must hand all of spec.inputs(), a dict, to "
                f"{type(network).__name__}(inputs, outputs)."
            )
        inputs = {tensor.name: tensor for tensor in network.inputs}
        return keras.Model(inputs, network.outputs[0], name=network.name)

    def start_variables(self):
        """Return None: new weights are drawn."""
        return None

    @property
    def key(self):
        """Hashable that only blueprints of the same network share; None where it is unknown."""
        from skstack._training.fingerprint import Unknown, fingerprint, fingerprint_value

        cls = type(self.recipe)
        try:
            if cls in (MLP, Autoencoder, SequenceEncoder):
                code = cls.__name__
            else:
                code = fingerprint(cls.function)
            parameters = tuple(
                (name, fingerprint_value(value))
                for name, value in sorted(self.recipe.get_params(deep=False).items())
            )
        except (Unknown, AttributeError):
            return None
        return ("recipe", code, parameters, self.spec)


def latent_layer(model):
    """Name of an autoencoder's latent layer: ``latent`` where there is one, else the narrowest.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential.

    Returns
    -------
    str
        The first of the layers with the fewest outputs for a row.

    Raises
    ------
    ValueError
        If the model does not show its layers' outputs (a subclassed model).
    """
    import keras

    widths = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        try:
            shape = layer.output.shape[1:]
        except (AttributeError, ValueError):
            continue
        widths[layer.name] = math.prod(size or 1 for size in shape)
    if "latent" in widths:
        return "latent"
    if not widths:
        raise ValueError(
            f"model={model.name!r} ({type(model).__name__}) does not show the outputs of its "
            "layers, so its latent layer cannot be found; accepted are functional and Sequential "
            "models and recipes, best with a layer named 'latent'."
        )
    return min(widths, key=widths.get)


@dataclass(frozen=True)
class DecoderBlueprint:
    """The part of an autoencoder behind its latent layer.

    Parameters
    ----------
    blueprint : blueprint
        Of the autoencoder.

    layer : str
        Its latent layer.
    """

    blueprint: Any
    layer: str

    @property
    def key(self):
        """Of the autoencoder, and the layer; None where the autoencoder has none."""
        key = self.blueprint.key
        return None if key is None else ("decoder", self.layer, key)

    def build(self):
        """The decoder, a ``keras.Model`` from the latent layer's output to the rebuilt table."""
        import keras

        model = self.blueprint.build()
        return keras.Model(model.get_layer(self.layer).output, model.outputs[0])
