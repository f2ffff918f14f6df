"""A user's trained ``keras.Model`` as a blueprint, frozen as it is."""

from __future__ import annotations

from skstack.networks._copied_model import CopiedModel, without_drawing
from skstack.networks._copies import architecture, is_graph
from skstack.networks._inputs import match_inputs

__all__ = ["FrozenBlueprint"]


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
        In the order of ``build().outputs``.

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
        if architecture(model) is None:
            self._check_copy()

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
