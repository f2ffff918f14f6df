"""A trained network: a blueprint and NumPy weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from skstack._training import predict
from skstack._training.blueprint import Blueprint
from skstack._training.isolation import build, preserve_rng
from skstack._training.keras_model import assign, named_variables
from skstack._training.normalization import settle_normalizations
from skstack._training.xla_layers import without_einsum


class Network:
    """A network as data: can be pickled and deep-copied, and predicts in many threads.

    Parameters
    ----------
    blueprint : Blueprint
    variables : dict of str to ndarray
        Weights by variable path, as `initial_variables` returns them.
    """

    def __init__(self, blueprint: Blueprint, variables: Mapping[str, np.ndarray]):
        self.blueprint = blueprint
        self.variables = dict(variables)
        self.prepared = None  # what a prediction begins with, see `predict`

    def outputs(
        self,
        inputs: Mapping[str, np.ndarray],
        layers: Sequence[str] | None = None,
        rows_at_once: int | None = None,
        pooling: str | None = None,
    ) -> list[np.ndarray]:
        """Compute the network's outputs, or those of inner layers, in inference mode.

        On one machine the bits of a row's outputs do not depend on the other rows: every call runs
        in padded chunks of one size, which depends on the architecture alone.

        Parameters
        ----------
        inputs : dict of str to ndarray of shape (n_rows, ...)
            One array for each input of the network.
        layers : sequence of str, default=None
            Layers whose outputs are returned, computed in one pass; "outer/inner" for a layer of a
            nested model. None: the outputs of the network.
        rows_at_once : int, default=None
            Rows per chunk, for networks with large activations.
        pooling : {"flatten", "mean", "max", "last"}, default=None
            How outputs of rank 3 and more are reduced to columns; masked steps are ignored, or 0
            when flattened. None: not reduced.

        Returns
        -------
        outputs : list of ndarray of shape (n_rows, ...), dtype float32
            One per output of the network or of each layer.

        Raises
        ------
        ValueError
            If a layer does not exist, or is never called.
        """
        return predict.outputs(self, inputs, layers, rows_at_once, pooling)

    def changed(self, variables: Mapping[str, np.ndarray]) -> Network:
        """Return the same network with other weights for some paths."""
        return Network(self.blueprint, {**self.variables, **variables})

    def build(self):
        """Build a new, uncompiled `keras.Model` with these weights."""
        model = build(self.blueprint)
        assign(named_variables(model), self.variables)
        return settle_normalizations(model)

    def public(self, finish):
        """Return the public model of this network, built and finished at the first call."""
        if "_public" not in vars(self):
            with preserve_rng():
                model = without_einsum(finish(self.build()))
            vars(self).setdefault("_public", model)  # the first of several threads wins
        return vars(self)["_public"]

    def __getstate__(self):
        state = {**self.__dict__, "prepared": None}
        state.pop("_public", None)
        return state

    def __repr__(self):
        size = sum(array.size for array in self.variables.values())
        return f"{type(self).__name__}({self.blueprint!r}, {size} values)"
