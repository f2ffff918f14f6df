"""What the two ways of taking in a user's ``keras.Model`` share: it is copied, never trained."""

from __future__ import annotations

import functools

import numpy as np

from skstack.networks._copies import (
    copied_graph,
    copied_object,
    copy_weights,
    is_graph,
    is_kerases_own,
)
from skstack.networks._inputs import match_inputs

__all__ = ["CopiedModel", "first_outputs", "without_drawing"]


def without_drawing(function):
    """Leave Python's random numbers as they were: Keras takes the seeds of copies from there."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        from skstack.training import undisturbed

        with undisturbed():
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
