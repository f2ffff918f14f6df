"""What the two ways of taking in a user's ``keras.Model`` share: it is copied, never trained."""

# A user's ``keras.Model`` as a blueprint, adapted to a task.

from __future__ import annotations

import functools
import warnings

import numpy as np

from skstack.networks._cloning import (
    architecture,
    copied_graph,
    copied_object,
    copy_weights,
    has_own_steps,
    is_builtin_keras,
    is_graph,
)
from skstack.networks._heads import final_activation, fitting_head, gives_probabilities
from skstack.networks._inputs import match_inputs


def without_drawing(function):
    """Leave Python's random numbers as they were: Keras takes the seeds of copies from there."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        from skstack._training.seeds import preserve_rng

        with preserve_rng():
            return function(*args, **kwargs)

    return wrapped


class _Unshared:
    """A blueprint that nothing is kept of: two models of one architecture differ in weights."""

    key = None

    def __init__(self, build):
        self.build = build


class CopiedModel:
    """Common to the two ways of taking a ``keras.Model`` in: it is shared, and copied to build."""

    def __deepcopy__(self, memo):
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        memo[id(self)] = copied
        return copied

    def __getstate__(self):
        # Keras pickles a model's weights, but draws new seeds for its Dropout layers.
        seeds = {
            position: np.asarray(variable.value)
            for position, variable in enumerate(self.model.variables)
            if "seed" in variable.path
        }
        return {**self.__dict__, "_seeds": seeds}

    def __setstate__(self, state):
        seeds = state.pop("_seeds")
        self.__dict__.update(state)
        variables = self.model.variables
        for position, value in seeds.items():
            variables[position].assign(value)

    def start_variables(self):
        """Return the weights and seed states to continue from; None for an unbuilt model.

        Returns
        -------
        dict of str to ndarray, or None
            By variable path, in the order of ``build().variables``.
        """
        if not self.continued:
            return None
        from skstack._training.initial_weights import initial_variables

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
        if is_graph(model) or (isinstance(model, keras.Sequential) and is_builtin_keras(model)):
            return None, copied_graph(model, list(inputs.values()))
        copied = copied_object(model)
        single = len(inputs) == 1
        outputs = copied(next(iter(inputs.values())) if single else inputs)
        if model.built:
            copy_weights(model, copied, model)
        return copied, outputs

    def _network(self):
        """Copy the model onto named inputs, nothing added."""
        import keras

        inputs = self._inputs()
        return keras.Model(inputs, keras.tree.flatten(self._on(inputs)[1]))

    def _probing_rows(self):
        rng = np.random.default_rng(0)
        rows = {}
        for name, tensor in self._inputs().items():
            shape = (16, *[size or 4 for size in tensor.shape[1:]])
            if "int" in tensor.dtype or "bool" in tensor.dtype:
                rows[name] = rng.integers(2, size=shape).astype(tensor.dtype)
            else:
                rows[name] = rng.standard_normal(shape).astype(np.float32)
        return rows

    def _check_copy(self):
        """Refuse a model whose config does not tell all that its classes do.

        Only for classes that are not Keras' own, and only where the model gives the same twice.
        """
        model = self.model
        if not model.built or any("seed" in variable.path for variable in model.variables):
            return
        rows = self._probing_rows()
        takes = rows if len(rows) > 1 else next(iter(rows.values()))
        if isinstance(getattr(model, "input", None), (list, tuple)):
            takes = list(rows.values())
        try:
            once, again = first_outputs(model, takes), first_outputs(model, takes)
        except Exception:  # whatever a foreign call raises on made-up rows tells nothing
            return
        if not all(map(np.array_equal, once, again)):
            return
        copied = first_outputs(self._network(), rows)
        close = len(copied) == len(once) and all(
            np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)
            for a, b in zip(copied, once, strict=True)
        )
        if not close:
            raise ValueError(
                f"model={model.name!r} of class {type(model).__name__} cannot be copied: a copy "
                "made from its config gives other outputs. Give its class, and the classes of its "
                "layers, a get_config that holds all arguments of the constructor, and change no "
                "attribute afterwards."
            )


def first_outputs(network, rows):
    import keras

    return [np.asarray(output) for output in keras.tree.flatten(network(rows))]


class ModelBlueprint(CopiedModel):
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

    learns_raw_targets : bool
        Whether it has y's units already, as a continued one does, or trains in its own way.

    activation : str or None
        Name of the activation that the adapted network ends with, None where it is unknown.

    Raises
    ------
    ValueError
        If inputs or outputs do not fit, or the model cannot be copied.
    """

    @without_drawing
    def __init__(self, model, spec):
        self.model = model
        self.blocks = spec.blocks
        self.continued = bool(model.built)
        self.learns_raw_targets = self.continued or has_own_steps(model)
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
        if architecture(model) is None:
            self._check_copy()
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

    @property
    def loss(self):
        """The loss that the model was compiled with, or None.

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
        own = is_builtin_keras(loss) and isinstance(loss, keras.losses.Loss)
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

    @property
    def optimizer(self):
        """A new optimizer with the settings of the model's own; None where it has none."""
        optimizer = getattr(self.model, "optimizer", None) if self.model.compiled else None
        return None if optimizer is None else type(optimizer).from_config(optimizer.get_config())

    @property
    def metrics(self):
        """Copies of the metrics that the model was compiled with; None where it has none.

        A metric that cannot be copied is left out with a warning.
        """
        import keras

        if not self.model.compiled:
            return None
        found, left_out = [], []
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The object being serialized includes a")
            config = self.model.get_compile_config() or {}
        for metric in _compiled_metrics(config):
            name = metric if isinstance(metric, str) else metric.get("config")
            kind = None if isinstance(metric, str) else metric["class_name"]
            try:
                if kind == "function":
                    found.append(getattr(keras.metrics, name, None) or getattr(keras.losses, name))
                elif kind == "__lambda__":
                    left_out.append("lambda")
                else:
                    found.append(metric if kind is None else keras.metrics.deserialize(metric))
            except Exception:  # a function or a class that no name leads to
                left_out.append(name if kind == "function" else kind)
        if left_out:
            warnings.warn(
                f"model={self.model.name!r} was compiled with metrics that cannot be copied: "
                f"{left_out}. They are left out; pass them as metrics of the estimator.",
                UserWarning,
                stacklevel=2,
            )
        return tuple(found) or None

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
        outputs = first_outputs(self._network(), self._probing_rows())[0]
        if not gives_probabilities(outputs, self.spec.task):
            wanted = "softmax" if self.spec.task == "multiclass" else "sigmoid"
            raise ValueError(
                f"model={self.model.name!r} gives outputs from {outputs.min():.3g} to "
                f"{outputs.max():.3g}, which are no probabilities. End it with a Dense layer, "
                f"with the activation {wanted!r} or none."
            )


def _compiled_metrics(config):
    """What stands under ``metrics`` and ``weighted_metrics`` of a compile config, one by one."""
    found = []

    def walk(part):
        if isinstance(part, (list, tuple)):
            for item in part:
                walk(item)
        elif isinstance(part, dict) and "class_name" not in part:  # by output
            for item in part.values():
                walk(item)
        elif part is not None:
            found.append(part)

    for key in ("metrics", "weighted_metrics"):
        walk(config.get(key))
    return found
