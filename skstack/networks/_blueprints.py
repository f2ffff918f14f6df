"""What training needs to make a network: a recipe with a spec, or a user's ``keras.Model``."""

from __future__ import annotations

import copy

import numpy as np

from skstack.networks._autoencoder import Autoencoder
from skstack.networks._copies import (
    architecture,
    copied_graph,
    copied_object,
    copy_weights,
    has_own_steps,
    is_graph,
    is_kerases_own,
)
from skstack.networks._heads import final_activation, fitting_head, gives_probabilities
from skstack.networks._inputs import match_inputs
from skstack.networks._mlp import MLP

__all__ = ["FrozenBlueprint", "ModelBlueprint", "RecipeBlueprint"]


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
    """

    continued = False

    def __init__(self, recipe, spec):
        self.recipe = recipe
        self.spec = spec

    @property
    def task(self):
        """What the network is for; see ``Spec``."""
        return self.spec.task

    @property
    def units(self):
        """Width of the network's output."""
        return self.spec.units

    def compiled_loss(self):
        """Return None: recipes leave the loss to the estimator."""
        return None

    def compiled_optimizer(self):
        """Return None: recipes leave the optimizer to the estimator."""
        return None

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
        network = self.recipe.build(self.spec)
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
        if not is_kerases_own(network):
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
        from skstack.training import Unknown, fingerprint, fingerprint_value

        cls = type(self.recipe)
        try:
            if cls in (MLP, Autoencoder):
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


class _Unshared:
    """A blueprint that nothing is kept of: two models of one architecture differ in weights."""

    key = None

    def __init__(self, build):
        self.build = build


class _CopiedModel:
    """Common to the two ways of taking a ``keras.Model`` in: it is shared, and copied to build."""

    def __deepcopy__(self, memo):
        copied = copy.copy(self)
        memo[id(self)] = copied
        return copied

    def start_variables(self):
        """Return the weights and seed states to continue from; None for an unbuilt model.

        Returns
        -------
        dict of str to ndarray, or None
            By variable path, in the order of ``build().variables``.
        """
        if not self.continued:
            return None
        from skstack.training import initial_variables

        return initial_variables(_Unshared(self.build), seed=0)

    def _inputs(self):
        import keras

        shapes = match_inputs(self.model, self.blocks)
        return {
            name: keras.Input(shape, dtype=dtype, name=name)
            for name, (shape, dtype) in shapes.items()
        }

    def _on(self, inputs):
        """Copy the model onto named inputs, in its own order; a copy, or None, and its outputs."""
        import keras

        model = self.model
        if is_graph(model) or (isinstance(model, keras.Sequential) and is_kerases_own(model)):
            return None, copied_graph(model, list(inputs.values()))
        copied = copied_object(model)
        single = len(inputs) == 1
        outputs = copied(next(iter(inputs.values())) if single else inputs)
        if model.built:
            copy_weights(model, copied, model)
        return copied, outputs


class ModelBlueprint(_CopiedModel):
    """A user's ``keras.Model``, adapted to a task; the object itself is never touched.

    Parameters
    ----------
    model : keras.Model
        Unbuilt: a template, whose weights are new at each training. Built: training continues
        from its weights.

    spec : Spec
        The blocks and the task.

    Attributes
    ----------
    spec : Spec
        What the adapted network does: for two classes a model with two units has the task
        ``"multiclass"`` with two outputs.

    continued : bool
        Whether training starts from the model's own weights.

    activation : str or None
        Name of the activation that the adapted network ends with, None where it is unknown.

    Raises
    ------
    ValueError
        If inputs or outputs do not fit, or the model cannot be copied.
    """

    def __init__(self, model, spec):
        self.model = model
        self.blocks = spec.blocks
        self.continued = bool(model.built)
        self._added = None
        activation = final_activation(model)
        if is_graph(model):
            match_inputs(model, self.blocks)
            outputs = model.outputs
        else:
            import keras

            outputs = keras.tree.flatten(self._on(self._inputs())[1])
        if len(outputs) != 1:
            raise ValueError(
                f"model={model.name!r} has {len(outputs)} outputs; an estimator needs a network "
                "with one. KerasFeatureTransformer takes networks with several."
            )
        shape = (None, *outputs[0].shape[1:])
        self.spec, self._added = fitting_head(model.name, shape, activation, spec)
        self.activation = self._added or activation
        probabilities = spec.task in ("binary", "multiclass", "multilabel")
        if probabilities and self.activation is None:
            self._probe()
        if self._added and has_own_steps(model):
            raise ValueError(
                f"model={model.name!r} of class {type(model).__name__} trains in its own way and "
                f"ends without an activation; end it with {self._added!r}, for nothing can be "
                "added behind it."
            )

    @property
    def task(self):
        """What the adapted network is for; see ``Spec``."""
        return self.spec.task

    @property
    def units(self):
        """Width of the adapted network's output."""
        return self.spec.units

    def compiled_loss(self):
        """Return the loss that the model was compiled with, or None.

        It expects probabilities where an activation was added.

        Raises
        ------
        ValueError
            If an activation was added, and it cannot be known whether the loss expects it.
        """
        import keras

        loss = getattr(self.model, "loss", None) if self.model.compiled else None
        if isinstance(loss, dict) and len(loss) == 1:
            loss = next(iter(loss.values()))
        if isinstance(loss, (list, tuple)) and len(loss) == 1:
            loss = loss[0]
        if loss is None or isinstance(loss, str):
            return loss
        own = is_kerases_own(loss) and isinstance(loss, keras.losses.Loss)
        if own and type(loss).__name__ != "LossFunctionWrapper":
            config = loss.get_config()
            if self._added and "from_logits" in config:
                config["from_logits"] = False
            return type(loss).from_config(config)
        builtin = getattr(loss, "__module__", "").partition(".")[0] == "keras"
        if self._added and not builtin:
            raise ValueError(
                f"model={self.model.name!r} ends without an activation, to which "
                f"{self._added!r} was added, and was compiled with a loss of its own, "
                f"{loss!r}, that may expect it or not. End the model with {self._added!r}, or "
                "pass loss to the estimator."
            )
        return loss

    def compiled_optimizer(self):
        """Make an optimizer with the settings of the model's own; None where it has none."""
        optimizer = getattr(self.model, "optimizer", None) if self.model.compiled else None
        return None if optimizer is None else type(optimizer).from_config(optimizer.get_config())

    def build(self):
        """Make a private copy of the model, with inputs by block name and the added activation.

        A model whose class trains in its own way keeps its class and takes its inputs as it always
        did.

        Returns
        -------
        keras.Model
        """
        import keras

        inputs = self._inputs()
        copied, outputs = self._on(inputs)
        if copied is not None and has_own_steps(copied):
            return copied
        (outputs,) = keras.tree.flatten(outputs)
        if self._added:
            name = self.spec.layer_name("probabilities")
            outputs = keras.layers.Activation(self._added, dtype="float32", name=name)(outputs)
        return keras.Model(inputs, outputs, name=self.model.name)

    @property
    def key(self):
        """Hashable that only blueprints of the same network share; None where it is unknown."""
        text = architecture(self.model)
        return None if text is None else ("model", text, self._added, self.spec)

    def _probe(self):
        """Look at some outputs where no activation can be read off."""
        import keras

        rng = np.random.default_rng(0)
        rows = {
            block.name: rng.integers(block.cardinality, size=16).astype("int32")
            if block.kind == "categorical"
            else rng.standard_normal((16, *[size or 4 for size in block.shape])).astype("float32")
            for block in self.blocks
        }
        inputs = self._inputs()
        network = keras.Model(inputs, self._on(inputs)[1])
        outputs = np.asarray(keras.tree.flatten(network(rows))[0])
        if not gives_probabilities(outputs, self.spec.task):
            wanted = "softmax" if self.spec.task == "multiclass" else "sigmoid"
            raise ValueError(
                f"model={self.model.name!r} gives outputs from {outputs.min():.3g} to "
                f"{outputs.max():.3g}, which are no probabilities. End it with a Dense layer, "
                f"with the activation {wanted!r} or none."
            )


class FrozenBlueprint(_CopiedModel):
    """A user's built ``keras.Model`` as it is: any outputs, nothing added, never trained.

    Parameters
    ----------
    model : keras.Model
        Built.

    blocks : tuple of Block
        What X is made of.

    Attributes
    ----------
    input_shapes : dict of str to tuple
        By block name, with None for the rows.

    output_names : list of str
        In the order of ``build().outputs``.

    output_shapes : list of tuple
        With None for the rows.

    Raises
    ------
    ValueError
        If the model is unbuilt, cannot be copied, or X does not fit its inputs.
    """

    continued = True

    def __init__(self, model, blocks):
        self.model = model
        self.blocks = tuple(blocks)
        if not model.built:
            raise ValueError(
                f"model={model.name!r} is unbuilt: it has no weights yet, so it cannot be used as "
                "it is. Build or train it first, or wrap it in an estimator to train."
            )
        shapes = match_inputs(model, self.blocks)
        self.input_shapes = {name: (None, *shape) for name, (shape, _) in shapes.items()}
        network = model if is_graph(model) else self.build()
        self.output_shapes = [(None, *tensor.shape[1:]) for tensor in network.outputs]
        self.output_names = _output_names(model, len(self.output_shapes))

    def build(self):
        """Make a private copy of the model, with inputs by block name and its own outputs.

        Returns
        -------
        keras.Model
            With one output, or a list of them in the order of ``output_names``.
        """
        import keras

        inputs = self._inputs()
        outputs = keras.tree.flatten(self._on(inputs)[1])
        network = keras.Model(
            inputs, outputs[0] if len(outputs) == 1 else outputs, name=self.model.name
        )
        network.trainable = False
        return network

    @property
    def key(self):
        """Hashable that only blueprints of the same network share; None where it is unknown."""
        text = architecture(self.model)
        return None if text is None else ("frozen", text, self.blocks)


def _output_names(model, n_outputs):
    import keras

    try:
        structure = model.output
    except (AttributeError, ValueError):
        structure = None
    if isinstance(structure, dict):
        names = list(structure) if len(structure) == len(keras.tree.flatten(structure)) else []
        # Keras flattens a dict in the order of its sorted keys.
        names.sort()
    else:
        names = list(getattr(model, "output_names", None) or ())
    if len(names) != n_outputs or len(set(names)) != n_outputs:
        names = [f"output_{number}" for number in range(n_outputs)]
    return names
