"""A user's ``keras.Model`` as a blueprint: a copy is trained, the model is never changed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
import warnings

import numpy as np

from skstack._base.keras_objects import customs_known, customs_of, remade
from skstack.networks._cloning import (
    architecture,
    copied_graph,
    copied_object,
    copy_weights,
    has_own_steps,
    is_builtin_keras,
    is_graph,
    rank_explained,
)
from skstack.networks._heads import final_activation, random_rows
from skstack.networks._spec import PROBABILITY_ACTIVATIONS, block_shapes


def without_drawing(function):
    """Preserve the state of Python's generator, from which Keras draws the seeds of copies."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        from skstack._training.isolation import preserve_rng

        with preserve_rng():
            return function(*args, **kwargs)

    return wrapped


def _known_inputs(model):
    """Shape of one row and dtype of each input, by name, in the model's order; None if unknown."""
    tensors = getattr(model, "inputs", None)
    if tensors:
        structure = getattr(model, "input", None)
        if isinstance(structure, dict):
            by_identity = {id(tensor): name for name, tensor in structure.items()}
            names = [by_identity.get(id(tensor), tensor.name) for tensor in tensors]
        else:
            names = [tensor.name for tensor in tensors]
        return {
            name: (tuple(tensor.shape[1:]), tensor.dtype)
            for name, tensor in zip(names, tensors, strict=True)
        }
    if not model.built:
        return None
    shapes = (model.get_build_config() or {}).get("input_shape")
    if isinstance(shapes, dict):
        return {name: (tuple(shape[1:]), None) for name, shape in shapes.items()}
    if shapes and not any(isinstance(size, (list, tuple)) for size in shapes):
        return {"input": (tuple(shapes[1:]), None)}
    return None


def _fits(shape, block):
    if block.shape == () and shape == (1,):
        return True
    return len(shape) == len(block.shape) and all(
        size is None or size == own for size, own in zip(shape, block.shape, strict=True)
    )


def _advice(shape, block):
    """Advice on `input_shape`, if the sizes allow a reshape."""
    fixed = None not in shape and math.prod(shape) == math.prod(block.shape)
    return f" To reshape the columns, set input_shape={tuple(shape)}." if fixed else ""


def _looks_up(model):
    """Whether a model, or one inside it, encodes categories with a lookup layer."""
    import keras

    lookups = (keras.layers.StringLookup, keras.layers.IntegerLookup, keras.layers.Hashing)
    return any(
        isinstance(layer, lookups) or (isinstance(layer, keras.Model) and _looks_up(layer))
        for layer in model.layers
    )


def refuse_strings(model):
    """Refuse a model with inputs of strings."""
    import keras

    readers = (keras.layers.TextVectorization, keras.layers.StringLookup, keras.layers.Hashing)
    known = _known_inputs(model) or {}
    names = [name for name, (_, dtype) in known.items() if dtype == "string"]
    if not model.built and isinstance(next(iter(model.layers), None), readers):
        names = [model.layers[0].name]  # of a Sequential, whose inputs are unknown
    if not names:
        return
    if _looks_up(model):
        raise ValueError(
            f"model={model.name!r} has lookup layers for categories and the inputs {names} of "
            "strings, but networks are trained on numbers and codes of categories. If it was "
            "exported from an estimator of skstack, pass that estimator, which holds its "
            "categories: FrozenEstimator(estimator), saved with skstack.save. Otherwise leave "
            "these layers out: columns of strings become codes by themselves."
        )
    raise ValueError(
        f"model={model.name!r} has the inputs {names} of strings, but networks are trained on "
        "numbers and codes of categories. Apply its TextVectorization before, in a step of a "
        "Pipeline, and build the model on token ids, with keras.Input(shape, dtype='int32')."
    )


def _refuse_looking_up(model, blocks):
    """Refuse codes of categories for a model that takes the categories themselves."""
    coded = [name for name, block in blocks.items() if block.kind == "categorical"]
    if coded and _looks_up(model):
        raise ValueError(
            f"model={model.name!r} has lookup layers for categories, but would get the codes of "
            f"{coded}. If it was exported from an estimator of skstack, pass that estimator, which "
            "holds its categories: FrozenEstimator(estimator), saved with skstack.save."
        )


def match_inputs(model, blocks):
    """Match inputs to blocks, by name or order; return shape and dtype by block name."""
    known = _known_inputs(model)
    shapes, blocks = block_shapes(blocks), {block.name: block for block in blocks}
    if known is None:
        sequential = type(model).__name__ == "Sequential"
        if sequential and len(blocks) > 1:
            raise ValueError(
                f"model={model.name!r} is a Sequential and takes one input, but X has the blocks "
                f"{shapes}. Encode the categories as numbers first, or pass a recipe."
            )
        return {name: (block.shape, block.dtype) for name, block in blocks.items()}
    if len(known) == 1 and len(blocks) == 1:
        pairs = {next(iter(blocks)): next(iter(known.values()))}
    elif set(known) == set(blocks):
        pairs = known
    elif len(known) == len(blocks) and list(blocks) == [f"input_{i}" for i in range(len(blocks))]:
        pairs = dict(zip(blocks, known.values(), strict=True))  # columns were listed in order
    else:
        expected = {name: (None, *shape) for name, (shape, _) in known.items()}
        raise ValueError(
            f"model={model.name!r} takes the inputs {expected}, but X has the blocks {shapes}. "
            "Several inputs are matched by name: set `inputs` to the columns of each, encode the "
            "categories as numbers first, or pass a recipe."
        )
    _refuse_looking_up(model, blocks)
    for name, (shape, _) in pairs.items():
        if not _fits(shape, blocks[name]):
            raise ValueError(
                f"model={model.name!r} takes an input of shape {(None, *shape)}, but the block "
                f"{name!r} of X has shape {shapes[name]}.{_advice(shape, blocks[name])}"
            )
    return {name: (shape, dtype or blocks[name].dtype) for name, (shape, dtype) in pairs.items()}


class UnfitHead(ValueError):
    """The output of a model has another form than predictions of the task."""


def _fitted_head(model_name, shape, activation, spec):
    """The spec that an output fulfils, and the activation to append to it (None for none)."""
    requested = spec
    if spec.task == "binary" and shape == (None, 2):
        spec = dataclasses.replace(spec, task="multiclass", n_outputs=2)
    expected = spec.output_shape
    fits = len(shape) == len(expected) and all(
        size is None or width is None or size == width
        for size, width in zip(shape, expected, strict=True)
    )
    if not fits:
        or_two = " or (None, 2)" if requested.task == "binary" else ""
        raise UnfitHead(
            f"model={model_name!r} has an output of shape {shape}, but {_described(requested)} "
            f"needs {requested.output_shape}{or_two}."
        )
    expected = PROBABILITY_ACTIVATIONS.get(spec.task)
    if expected is None or activation is None:
        return spec, None
    if activation == "linear":
        return spec, expected
    if activation == expected or (expected == "sigmoid" and activation == "hard_sigmoid"):
        return spec, None
    raise UnfitHead(
        f"model={model_name!r} ends with the activation {activation!r}, but "
        f"{_described(requested)} with {shape[-1]} output units needs {expected!r}, or no "
        f"activation, to which {expected!r} is added."
    )


def _can_be_probabilities(outputs, task):
    """Whether outputs of shape (n_rows, n_units) can be probabilities."""
    outputs = np.asarray(outputs, dtype=np.float64)
    inside = np.all((outputs >= -1e-6) & (outputs <= 1 + 1e-6))
    return bool(inside and (task != "multiclass" or np.allclose(outputs.sum(axis=1), 1, atol=1e-3)))


def _described(spec):
    outputs = {
        "binary": "classes",
        "multiclass": "classes",
        "multilabel": "labels",
        "regression": "targets",
        "reconstruction": "columns to rebuild",
    }
    return f"a task of {2 if spec.task == 'binary' else spec.n_outputs} {outputs[spec.task]}"


class CopiedModel:
    """Base of the blueprints of a user's ``keras.Model``, which copies of them share."""

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
        """Weights and seed states to continue from, by path; None for an unbuilt model."""
        if not self.continued:
            return None
        from skstack._training.initial_weights import initial_variables

        return initial_variables(self, seed=0, shared=False)

    def _inputs(self):
        import keras

        shapes = match_inputs(self.model, self.blocks)
        return {
            name: keras.Input(shape, dtype=dtype, name=name)
            for name, (shape, dtype) in shapes.items()
        }

    def _on(self, inputs):
        """Apply a copy of the model to named inputs: (copy, or None for a graph; outputs)."""
        import keras

        model = self.model
        if is_graph(model) or (isinstance(model, keras.Sequential) and is_builtin_keras(model)):
            return None, copied_graph(model, list(inputs.values()))
        copied = copied_object(model)
        rows, explained = inputs, _dict_explained(model, inputs)
        if len(inputs) == 1:
            (rows,) = inputs.values()
            explained = rank_explained(model, rows)
        with explained:
            outputs = copied(rows)
        if model.built:
            copy_weights(model, copied, model)
        return copied, outputs

    def _network(self):
        """A copy of the model on named inputs, without any addition."""
        import keras

        inputs = self._inputs()
        return keras.Model(inputs, keras.tree.flatten(self._on(inputs)[1]))

    def _random_rows(self):
        return random_rows(self._inputs(), 16, np.random.default_rng(0))

    def _check_copy(self):
        """Refuse a model of custom classes whose copy computes other outputs.

        Nondeterministic models are not checked.
        """
        model = self.model
        if not model.built or any("seed" in variable.path for variable in model.variables):
            return
        rows = self._random_rows()
        inputs = rows if len(rows) > 1 else next(iter(rows.values()))
        if isinstance(getattr(model, "input", None), (list, tuple)):
            inputs = list(rows.values())
        try:
            outputs, repeated = _outputs_of(model, inputs), _outputs_of(model, inputs)
        except Exception:  # random rows may be invalid for a custom call
            return
        if not all(map(np.array_equal, outputs, repeated)):
            return
        copied = _outputs_of(self._network(), rows)
        close = len(copied) == len(outputs) and all(
            np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)
            for a, b in zip(copied, outputs, strict=True)
        )
        if not close:
            raise ValueError(
                f"model={model.name!r} of class {type(model).__name__} cannot be copied: a copy "
                "made from its config computes other outputs. Give its class, and the classes of "
                "its layers, a get_config that holds all arguments of the constructor, and set no "
                "attributes afterwards."
            )


@contextlib.contextmanager
def _dict_explained(model, inputs):
    """Context in which errors say that a model of a custom class receives a dict."""
    try:
        yield
    except Exception as error:  # a user's class may raise anything
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"model={model.name!r} of class {type(model).__name__} fails on its inputs: {reason} "
            f"Its `call` receives a dict of them by name, with the keys {list(inputs)}."
        ) from error


def _outputs_of(network, rows):
    import keras

    return [np.asarray(output) for output in keras.tree.flatten(network(rows))]


class ModelBlueprint(CopiedModel):
    """A user's ``keras.Model``, adapted to a task.

    A built model is continued from its weights; an unbuilt one is a template that gets new weights
    in each fit. ``spec`` describes the adapted network: with two units for two classes the task is
    ``"multiclass"``. ``learns_raw_targets``: whether its targets are left unscaled.
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
                "with one. KerasFeatureTransformer accepts networks with several."
            )
        shape = (None, *outputs[0].shape[1:])
        self.spec, self._added = _fitted_head(model.name, shape, activation, spec)
        self.activation = self._added or activation
        if architecture(model) is None:
            self._check_copy()
        if spec.task in PROBABILITY_ACTIVATIONS and self.activation is None:
            self._check_probabilities()
        if self._added and has_own_steps(model):
            raise ValueError(
                f"model={model.name!r} of class {type(model).__name__} overrides train_step and "
                f"ends without an activation. End it with {self._added!r}: no layer can be "
                "appended to such a model."
            )

    @property
    def loss(self):
        """The loss that the model was compiled with, for probabilities if an activation is added.

        None if it was not compiled.
        """
        import keras

        loss = getattr(self.model, "loss", None) if self.model.compiled else None
        if isinstance(loss, dict) and len(loss) == 1:
            loss = next(iter(loss.values()))
        if isinstance(loss, (list, tuple)) and len(loss) == 1:
            loss = loss[0]
        if loss is None or isinstance(loss, str):
            return loss
        known = is_builtin_keras(loss) and isinstance(loss, keras.losses.Loss)
        if known and type(loss).__name__ != "LossFunctionWrapper":
            config = loss.get_config()
            if self._added and "from_logits" in config:
                config["from_logits"] = False
            return type(loss).from_config(config)
        builtin = getattr(loss, "__module__", "").partition(".")[0] == "keras"
        if self._added and not builtin:
            raise ValueError(
                f"model={self.model.name!r} ends without an activation, so {self._added!r} is "
                f"added, but it was compiled with the custom loss {loss!r}, which may expect "
                f"logits. End the model with {self._added!r}, or pass loss to the estimator."
            )
        return loss

    @property
    def optimizer(self):
        """A new optimizer with the settings of the model's; None if it has none."""
        optimizer = getattr(self.model, "optimizer", None) if self.model.compiled else None
        return None if optimizer is None else remade(optimizer)

    @property
    def metrics(self):
        """Copies of the compiled metrics, without those that cannot be copied; None for none."""
        import keras

        if not self.model.compiled:
            return None
        metrics, left_out, customs = [], [], customs_of(self.model.metrics)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The object being serialized includes a")
            config = self.model.get_compile_config() or {}
        for metric in _compiled_metrics(config):
            name = metric if isinstance(metric, str) else metric.get("config")
            kind = None if isinstance(metric, str) else metric["class_name"]
            try:
                if kind == "function":
                    function = getattr(keras.metrics, name, None) or getattr(keras.losses, name)
                    metrics.append(function)
                elif kind == "__lambda__":
                    left_out.append("lambda")
                else:
                    with customs_known(customs):
                        metrics.append(
                            metric if kind is None else keras.metrics.deserialize(metric)
                        )
            except Exception:  # a custom function or class that is not registered
                left_out.append(name if kind == "function" else kind)
        if left_out:
            warnings.warn(
                f"model={self.model.name!r} was compiled with metrics that cannot be copied: "
                f"{left_out}. They are left out; pass them as metrics of the estimator.",
                UserWarning,
                stacklevel=2,
            )
        return tuple(metrics) or None

    def build(self):
        """Build a copy with inputs by block name and the added activation.

        A model that overrides ``train_step`` keeps its class and the form of its inputs.
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
        """See ``RecipeBlueprint.key``."""
        text = architecture(self.model)
        return None if text is None else ("model", text, self._added, self.spec)

    def _check_probabilities(self):
        """Refuse outputs for random rows that are not probabilities."""
        outputs = _outputs_of(self._network(), self._random_rows())[0]
        if not _can_be_probabilities(outputs, self.spec.task):
            raise UnfitHead(
                f"model={self.model.name!r} has outputs from {outputs.min():.3g} to "
                f"{outputs.max():.3g}, which are not probabilities. End it with a Dense layer, "
                f"with the activation {PROBABILITY_ACTIVATIONS[self.spec.task]!r} or none."
            )


def _compiled_metrics(config):
    """Flat list of the ``metrics`` and ``weighted_metrics`` of a compile config."""
    metrics = []

    def walk(part):
        if isinstance(part, (list, tuple)):
            for item in part:
                walk(item)
        elif isinstance(part, dict) and "class_name" not in part:  # by output
            for item in part.values():
                walk(item)
        elif part is not None:
            metrics.append(part)

    for key in ("metrics", "weighted_metrics"):
        walk(config.get(key))
    return metrics


class FrozenBlueprint(CopiedModel):
    """A user's built ``keras.Model``, unchanged, with any outputs.

    ``input_shapes`` (by block name) and ``output_shapes`` have None for the rows; ``output_names``
    are in the order of ``build().outputs``.
    """

    continued = True

    @without_drawing
    def __init__(self, model, blocks):
        import keras

        self.model = model
        self.blocks = tuple(blocks)
        if not model.built:
            raise ValueError(
                f"model={model.name!r} is unbuilt: it has no weights yet. Build or train it first, "
                "or wrap it in an estimator to train."
            )
        shapes = match_inputs(model, self.blocks)
        self.input_shapes = {name: (None, *shape) for name, (shape, _) in shapes.items()}
        structure = self._output_structure()
        self.output_shapes = [(None, *tensor.shape[1:]) for tensor in keras.tree.flatten(structure)]
        self.output_names = _output_names(model, structure)
        if architecture(model) is None:
            self._check_copy()

    def build(self):
        """Build a copy with inputs by block name and frozen layers."""
        network = self.unfrozen()
        network.trainable = False
        return network

    def unfrozen(self):
        """Build the same copy with the ``trainable`` flags of the model's own layers."""
        import keras

        inputs = self._inputs()
        outputs = keras.tree.flatten(self._on(inputs)[1])
        return keras.Model(
            inputs, outputs[0] if len(outputs) == 1 else outputs, name=self.model.name
        )

    def _output_structure(self):
        """Symbolic outputs in the model's own structure."""
        import keras

        if not is_graph(self.model):
            return self._on(self._inputs())[1]
        return self.model.outputs if isinstance(self.model, keras.Sequential) else self.model.output

    @property
    def key(self):
        """See ``RecipeBlueprint.key``."""
        text = architecture(self.model)
        return None if text is None else ("frozen", text, self.blocks)


def _output_names(model, structure):
    """Keys of a dict of outputs, or names that the user gave to output layers, else numbers.

    Keras numbers automatic names ("dense_17") by what the process has built before, so the feature
    names would differ from process to process.
    """
    import keras

    n_outputs = len(keras.tree.flatten(structure))
    if isinstance(structure, dict) and len(structure) == n_outputs:
        return [str(key) for key in sorted(structure)]  # the order in which Keras flattens it
    layers = []
    if isinstance(model, keras.Sequential) and is_builtin_keras(model):
        layers = [model.layers[-1]]
    elif is_graph(model):
        operations = {operation.name: operation for operation in model.operations}
        layers = [operations[name] for name in model.output_names]
    numbered = ["output"] if n_outputs == 1 else [f"output_{i}" for i in range(n_outputs)]
    if len(layers) != n_outputs:
        return numbered
    names = [
        number if _has_automatic_name(layer) else layer.name
        for layer, number in zip(layers, numbered, strict=True)
    ]
    return names if len(set(names)) == n_outputs else numbered


def _has_automatic_name(layer):
    """Whether a name is the layer's class, with or without a number: "dense", "lstm_3"."""
    return re.sub(r"_\d+$", "", layer.name).replace("_", "") == type(layer).__name__.lower()
