"""Initial weights: the same for the same seed, and mostly drawn without building a network."""

from __future__ import annotations

import random
import threading
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from skstack._base.lru_cache import LRUCache
from skstack._training.blueprint import Blueprint
from skstack._training.fork_guard import refuse_after_fork
from skstack._training.seeds import build, environment, named_variables, values
from skstack._training.variables import called

_MAX_DRAWS = 4096
_LARGEST_SEED = int(1e9)  # Keras takes the seeds of layers and initialisers from 1 to this


class InitialWeights:
    """Draws what building a network would draw, once it has seen how.

    Keras draws the seed of each initialiser and of each layer such as Dropout from Python's
    generator. Two networks are built, for the first two seeds that are asked for; where the order
    of those draws explains every value of both, a third need not be built. Otherwise each is.

    Parameters
    ----------
    blueprint : object
        As for `initial_variables`.
    """

    def __init__(self, blueprint):
        self._blueprint = blueprint
        self._draws: Any = None  # how the values came to be
        self._first = None  # a seed, and what came of it
        self.builds = True  # until two networks have shown that it need not
        self._learning = threading.Lock()

    def variables(self, seed: int) -> dict[str, np.ndarray]:
        """Initial weights, new arrays."""
        if not self.builds:
            return self._draws.values(seed)
        if self._first is not None and self._first[0] == seed:
            return {path: array.copy() for path, array in self._first[1].items()}
        left: list = []
        model = build(self._blueprint, seed, drawn=left)
        built, n_draws = _all_values(model), _n_draws(seed, left[0])
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
                    self._draws = None  # never to be understood
        return built


def _n_draws(seed, state):
    """How many seeds of Keras' kind were drawn; None if something else was drawn, too."""
    generator = random.Random(int(seed))
    for n in range(_MAX_DRAWS):
        if generator.getstate() == state:
            return n
        generator.randint(1, _LARGEST_SEED)
    return None


def _all_values(model):
    named = named_variables(model)
    return dict(zip(named, values(named.values()), strict=True))


def _equal(found, expected):
    return found.keys() == expected.keys() and all(
        np.array_equal(array, expected[path], equal_nan=array.dtype.kind == "f")
        for path, array in found.items()
    )


def _seeds(seed, n):
    generator = random.Random(int(seed))
    return [generator.randint(1, _LARGEST_SEED) for _ in range(n)]


class _Draws:
    """How each variable of a network may have come to its value; the next network tells.

    Parameters
    ----------
    model : keras.Model
        Built with `seed`.
    seed : int
    n : int
        How many seeds were drawn.
    """

    def __init__(self, model, seed, n):
        self.n = n
        place_of = {number: place for place, number in enumerate(_seeds(seed, n))}
        initializers = _initializers(model)
        self._values, self._states, self._random = {}, {}, {}
        for path, variable in named_variables(model).items():
            array = self._values[path] = variable.numpy().copy()
            initializer = initializers.get(id(variable))
            own_seed = getattr(initializer, "seed", None)
            if array.dtype.kind in "iu" and array.shape == (2,) and int(array[0]) in place_of:
                self._states[path] = place_of[int(array[0])]
            elif _of_keras(initializer) and own_seed in place_of:
                self._random[path] = place_of[own_seed], initializer
        self.n_used = len({*self._states.values(), *(place for place, _ in self._random.values())})
        self._function = None

    def values(self, seed):
        """What a network of this seed would start with, new arrays."""
        seeds = _seeds(seed, self.n)
        drawn = {path: array.copy() for path, array in self._values.items()}
        for path, place in self._states.items():  # a seed, and a count that stands at 0
            drawn[path][0] = seeds[place]
        if self._random:
            if self._function is None:
                self._function = self._traced()
            wanted = np.array([seeds[place] for place, _ in self._random.values()], np.int64)
            arrays = called(self._function, [wanted])
            drawn.update(zip(self._random, (array.numpy() for array in arrays), strict=True))
        return drawn

    def _traced(self):
        """All initialisers in one call: one by one they take longer than a short fit."""

        def draw(seeds):
            arrays = []
            for i, (path, (_, initializer)) in enumerate(self._random.items()):
                like = self._values[path]
                config = {**initializer.get_config(), "seed": _Given(seeds[i])}
                again = type(initializer).from_config(config)
                arrays.append(again(like.shape, dtype=str(like.dtype)))
            return arrays

        spec = tf.TensorSpec([len(self._random)], tf.int64)
        return tf.function(draw, autograph=False).get_concrete_function(spec)


def _of_keras(initializer):
    return type(initializer).__module__.partition(".")[0] == "keras"


class _Given(keras.random.SeedGenerator):
    """Gives the one seed that it was told."""

    def __init__(self, seed):  # no state: `super().__init__` would make a variable
        self._seed = seed

    def next(self, ordered=True):
        return tf.stack([self._seed, tf.zeros_like(self._seed)])


def _initializers(model):
    """Initialiser by variable: a layer names them alike, `kernel` and `kernel_initializer`.

    Layers with several kernels leave that word out: `recurrent_initializer`.
    """
    found: dict = {}
    seen, left = set(), [model]
    while left:
        layer = left.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        for variable in layer.variables:
            for name in (variable.name, variable.name.removesuffix("_kernel")):
                given = getattr(layer, f"{name}_initializer", None)
                if isinstance(given, keras.initializers.Initializer):
                    found.setdefault(id(variable), given)
        left.extend(part for part in vars(layer).values() if isinstance(part, keras.layers.Layer))
        left.extend(getattr(layer, "layers", ()))
    return found


_INITIAL_WEIGHTS: LRUCache[InitialWeights] = LRUCache(64)


def initial_variables(
    blueprint: Blueprint, seed: int, *, shared: bool = True
) -> dict[str, np.ndarray]:
    """Initial weights of a network, seed states of layers such as Dropout included.

    Parameters
    ----------
    blueprint : object
        ``build()`` makes a `keras.Model`; ``key`` is hashable, or None where equality is unknown.
    seed : int
        The same seed gives the same bits. No global seed is read or set.
    shared : bool, default=True
        Whether networks with the same key share what is known of them; not where the weights of a
        user's model differ.

    Returns
    -------
    variables : dict of str to ndarray
        Fresh copies by variable path, in the order of ``model.variables``.
    """
    refuse_after_fork()
    if not shared or blueprint.key is None:
        return _all_values(build(blueprint, seed))
    key = (blueprint.key, environment())
    return _INITIAL_WEIGHTS.get(key, lambda: InitialWeights(blueprint)).variables(seed)
