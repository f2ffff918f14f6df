"""Initial weights: the same for the same seed, usually drawn without building a network."""

from __future__ import annotations

import random
import threading
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from skstack._base.lru_cache import LRUCache
from skstack._training.blueprint import Blueprint
from skstack._training.isolation import build, environment, refuse_after_fork
from skstack._training.keras_model import all_values, is_builtin_keras, named_variables
from skstack._training.spares import leave_model
from skstack._training.variables import call_concrete

_MAX_DRAWS = 4096
_LARGEST_SEED = int(1e9)  # Keras takes the seeds of layers and initialisers from 1 to this


class InitialWeights:
    """Draws the initial weights of a blueprint, without building a network where possible.

    Keras draws the seed of each initializer and of each layer such as Dropout from Python's
    generator. A network is built for each of the first two seeds. If the order of those draws
    explains all values of both, no further network is built; otherwise one for each seed.
    """

    def __init__(self, blueprint: Blueprint):
        self._blueprint = blueprint
        self._draws: Any = None  # None if it is not known how the values are drawn
        self._first: tuple[int, dict[str, np.ndarray]] | None = None  # a seed and its values
        self.builds = True  # until two networks have confirmed `_draws`
        self._learning = threading.Lock()

    def variables(self, seed: int) -> dict[str, np.ndarray]:
        """Initial weights, new arrays."""
        if not self.builds:
            return self._draws.values(seed)
        if self._first is not None and self._first[0] == seed:
            return {path: array.copy() for path, array in self._first[1].items()}
        queue: list = []
        model = build(self._blueprint, seed, drawn=queue)
        built, n_draws = all_values(model), _n_draws(seed, queue[0])
        with self._learning:
            if self._first is None:
                self._draws = None if n_draws is None else _Draws(model, seed, n_draws)
                self._first = seed, {path: array.copy() for path, array in built.items()}
            elif self.builds and self._draws is not None:
                if n_draws == self._draws.n == self._draws.n_used and _equal(
                    built, self._draws.values(seed)
                ):
                    self.builds = False
                else:
                    self._draws = None
            explained = self._draws is not None and self._draws.n_used == n_draws
        if explained:
            leave_model(self._blueprint, model)
        return built


def _n_draws(seed, state):
    """Return how many seeds Keras drew; None if something else was drawn too."""
    generator = random.Random(int(seed))
    for n in range(_MAX_DRAWS):
        if generator.getstate() == state:
            return n
        generator.randint(1, _LARGEST_SEED)
    return None


def _equal(values, expected):
    return values.keys() == expected.keys() and all(
        np.array_equal(array, expected[path], equal_nan=array.dtype.kind == "f")
        for path, array in values.items()
    )


def _seeds(seed, n):
    generator = random.Random(int(seed))
    return [generator.randint(1, _LARGEST_SEED) for _ in range(n)]


class _Draws:
    """A hypothesis on how a model, built with `seed` and `n` draws, drew its values."""

    def __init__(self, model, seed, n):
        self.n = n
        index_of = {number: index for index, number in enumerate(_seeds(seed, n))}
        initializers = _initializers(model)
        self._values, self._states, self._random = {}, {}, {}
        for path, variable in named_variables(model).items():
            array = self._values[path] = variable.numpy().copy()
            initializer = initializers.get(id(variable))
            own_seed = getattr(initializer, "seed", None)
            if array.dtype.kind in "iu" and array.shape == (2,) and int(array[0]) in index_of:
                self._states[path] = index_of[int(array[0])]
            elif is_builtin_keras(initializer) and own_seed in index_of:
                self._random[path] = index_of[own_seed], initializer
        self.n_used = len({*self._states.values(), *(index for index, _ in self._random.values())})
        self._function = None

    def values(self, seed):
        """Return the initial weights for a seed, as new arrays."""
        seeds = _seeds(seed, self.n)
        drawn = {path: array.copy() for path, array in self._values.items()}
        for path, index in self._states.items():  # a seed, and a counter at 0
            drawn[path][0] = seeds[index]
        if self._random:
            if self._function is None:
                self._function = self._traced()
            own_seeds = np.array([seeds[index] for index, _ in self._random.values()], np.int64)
            arrays = call_concrete(self._function, [own_seeds])
            drawn.update(zip(self._random, (array.numpy() for array in arrays), strict=True))
        return drawn

    def _traced(self):
        """Trace all initializers as one function: one by one they take longer than a short fit."""

        def draw(seeds):
            arrays = []
            for i, (path, (_, initializer)) in enumerate(self._random.items()):
                like = self._values[path]
                config = {**initializer.get_config(), "seed": _FixedSeed(seeds[i])}
                copied = type(initializer).from_config(config)
                arrays.append(copied(like.shape, dtype=str(like.dtype)))
            return arrays

        spec = tf.TensorSpec([len(self._random)], tf.int64)
        return tf.function(draw, autograph=False).get_concrete_function(spec)


class _FixedSeed(keras.random.SeedGenerator):
    """Always returns the same seed."""

    def __init__(self, seed):  # no state: `super().__init__` would make a variable
        self._seed = seed

    def next(self, ordered=True):
        return tf.stack([self._seed, tf.zeros_like(self._seed)])


def _initializers(model):
    """Initializers by id of variable, found by name: `kernel` and `kernel_initializer`.

    Layers with several kernels omit the word "kernel": `recurrent_initializer`.
    """
    initializers: dict = {}
    seen, queue = set(), [model]
    while queue:
        layer = queue.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        for variable in layer.variables:
            for name in (variable.name, variable.name.removesuffix("_kernel")):
                initializer = getattr(layer, f"{name}_initializer", None)
                if isinstance(initializer, keras.initializers.Initializer):
                    initializers.setdefault(id(variable), initializer)
        queue.extend(part for part in vars(layer).values() if isinstance(part, keras.layers.Layer))
        queue.extend(getattr(layer, "layers", ()))
    return initializers


_INITIAL_WEIGHTS: LRUCache[InitialWeights] = LRUCache(64)


def initial_variables(
    blueprint: Blueprint, seed: int, *, shared: bool = True
) -> dict[str, np.ndarray]:
    """Return the initial weights of a network, with the seed states of layers such as Dropout.

    Parameters
    ----------
    blueprint : Blueprint
    seed : int
        The same seed gives the same bits. No global seed is read or set.
    shared : bool, default=True
        Whether blueprints of the same key have the same initial weights. False if they hold
        different models of the user.

    Returns
    -------
    variables : dict of str to ndarray
        New arrays by variable path, in the order of ``model.variables``.
    """
    refuse_after_fork()
    network = blueprint.key if shared else None
    if network is None:
        model = build(blueprint, seed)
        built = all_values(model)
        if seed == 0:  # that of `any_model`
            leave_model(blueprint, model)
        return built
    return _INITIAL_WEIGHTS.get(
        (network, environment()), lambda: InitialWeights(blueprint)
    ).variables(seed)
