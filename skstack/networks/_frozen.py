"""A user's trained ``keras.Model`` as a blueprint, frozen as it is."""

from __future__ import annotations

import re

from skstack.networks._adopted import CopiedModel, without_drawing
from skstack.networks._cloning import architecture, is_builtin_keras, is_graph
from skstack.networks._inputs import match_inputs


class FrozenBlueprint(CopiedModel):
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
        In the order of ``build().outputs``: the keys of a dict of outputs, else the names of the
        output layers; ``"output"`` (or ``"output_0"``, ``"output_1"``, ...) in place of a name that
        Keras made up.

    output_shapes : list of tuple
        With None for the rows.

    Raises
    ------
    ValueError
        If the model is unbuilt, cannot be copied, or X does not fit its inputs.
    """

    continued = True

    @without_drawing
    def __init__(self, model, blocks):
        import keras

        self.model = model
        self.blocks = tuple(blocks)
        if not model.built:
            raise ValueError(
                f"model={model.name!r} is unbuilt: it has no weights yet, so it cannot be used as "
                "it is. Build or train it first, or wrap it in an estimator to train."
            )
        shapes = match_inputs(model, self.blocks)
        self.input_shapes = {name: (None, *shape) for name, (shape, _) in shapes.items()}
        structure = self._output_structure()
        self.output_shapes = [(None, *tensor.shape[1:]) for tensor in keras.tree.flatten(structure)]
        self.output_names = _output_names(model, structure)
        if architecture(model) is None:
            self._check_copy()

    def build(self):
        """Make a private copy of the model, with inputs by block name and its own outputs.

        Returns
        -------
        keras.Model
            With one output, or a list of them in the order of ``output_names``.
        """
        network = self.unfrozen()
        network.trainable = False
        return network

    def unfrozen(self):
        """Make the same copy with the ``trainable`` flags that the model's own layers have.

        Returns
        -------
        keras.Model
        """
        import keras

        inputs = self._inputs()
        outputs = keras.tree.flatten(self._on(inputs)[1])
        return keras.Model(
            inputs, outputs[0] if len(outputs) == 1 else outputs, name=self.model.name
        )

    def _output_structure(self):
        """Outputs as tensors that tell shapes, in the model's own structure."""
        import keras

        if not is_graph(self.model):
            return self._on(self._inputs())[1]
        return self.model.outputs if isinstance(self.model, keras.Sequential) else self.model.output

    @property
    def key(self):
        """Hashable that only blueprints of the same network share; None where it is unknown."""
        text = architecture(self.model)
        return None if text is None else ("frozen", text, self.blocks)


def _output_names(model, structure):
    """Keys of a dict, and names that a user gave to layers; where there are none, places.

    Keras numbers automatic names by all that the process has built ("dense_17"): features named so
    would be called otherwise next time.
    """
    import keras

    n_outputs = len(keras.tree.flatten(structure))
    if isinstance(structure, dict) and len(structure) == n_outputs:
        return [str(key) for key in sorted(structure)]  # the order in which Keras flattens it
    makers = []
    if isinstance(model, keras.Sequential) and is_builtin_keras(model):
        makers = [model.layers[-1]]
    elif is_graph(model):
        operations = {operation.name: operation for operation in model.operations}
        makers = [operations[name] for name in model.output_names]
    places = ["output"] if n_outputs == 1 else [f"output_{place}" for place in range(n_outputs)]
    if len(makers) != n_outputs:
        return places
    names = [
        place if _is_named_by_keras(maker) else maker.name
        for maker, place in zip(makers, places, strict=True)
    ]
    return names if len(set(names)) == n_outputs else places


def _is_named_by_keras(layer):
    """Whether a name is the layer's class, numbered or not: "dense", "lstm_3"."""
    return re.sub(r"_\d+$", "", layer.name).replace("_", "") == type(layer).__name__.lower()
