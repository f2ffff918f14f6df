"""Initial weights: the same for the same seed, and mostly drawn without building a network."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict

import keras
import numpy as np

from skstack.training._forks import refuse_after_fork
from skstack.training._seeds import build, environment, named_variables, values

_MAX_DRAWS = 4096
_MAX_STARTERS = 64
_LARGEST_SEED = int(1e9)  # Keras takes the seeds of layers and initialisers from 1 to this


class Starter:
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
        self._draws = None  # for each path: the value, or how to draw it
        self._first = None  # a seed, and what came of it
        self.builds = True  # until two networks have shown that it need not

    def variables(self, seed: int) -> dict[str, np.ndarray]:
        """Initial weights, new arrays."""
        if not self.builds:
            return _drawn(self._draws, seed)
        if self._first is not None and self._first[0] == seed:
            return {path: array.copy() for path, array in self._first[1].items()}
        model = build(self._blueprint, seed)
        built = _all_values(model)
        draws = self._draws  # another thread may come to an end before this one
        if self._first is None:
            self._draws = _explained(model, seed)
            self._first = seed, {path: array.copy() for path, array in built.items()}
        elif draws is not None:
            if _equal(built, _drawn(draws, seed)):
                self.builds = False
            else:
                self._draws = None  # never to be understood
        return built


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


def _explained(model, seed):
    """How each variable may have come to its value."""
    place_of = {number: place for place, number in enumerate(_seeds(seed, _MAX_DRAWS))}
    initializers = _initializers(model)
    draws = {}
    for path, variable in named_variables(model).items():
        array = variable.numpy().copy()
        initializer = initializers.get(id(variable))
        own_seed = getattr(initializer, "seed", None)
        if array.dtype.kind in "iu" and array.shape == (2,) and int(array[0]) in place_of:
            draws[path] = _SeedState(place_of[int(array[0])], array)
        elif isinstance(own_seed, int) and own_seed in place_of:
            draws[path] = _Random(place_of[own_seed], initializer, array)
        else:  # the second network that is built has the last word
            draws[path] = _Constant(array)
    return draws


def _initializers(model):
    """Initialiser by variable: a layer names them alike, `kernel` and `kernel_initializer`.

    Layers with several kernels leave that word out: `recurrent_initializer`.
    """
    found, seen, left = {}, set(), [model]
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


class _Constant:
    def __init__(self, array):
        self._array = array

    def draw(self, seeds):
        return self._array.copy()

    place = -1


class _SeedState:
    """The state of a seed generator: a seed, and a count that stands at 0."""

    def __init__(self, place, array):
        self.place = place
        self._array = array

    def draw(self, seeds):
        array = self._array.copy()
        array[0] = seeds[self.place]
        return array


class _Random:
    def __init__(self, place, initializer, array):
        self.place = place
        self._class = type(initializer)
        self._config = initializer.get_config()
        self._like = array

    def draw(self, seeds):
        initializer = self._class.from_config({**self._config, "seed": seeds[self.place]})
        array = initializer(self._like.shape, dtype=str(self._like.dtype))
        return keras.ops.convert_to_numpy(array).copy()


def _drawn(draws, seed):
    seeds = _seeds(seed, 1 + max(draw.place for draw in draws.values()))
    return {path: draw.draw(seeds) for path, draw in draws.items()}


_starters: OrderedDict = OrderedDict()
_lock = threading.Lock()


def _starter(key, blueprint):
    with _lock:
        starter = _starters.get(key)
        if starter is not None:
            _starters.move_to_end(key)
            return starter
    starter = Starter(blueprint)  # built without the lock: a build may be slow, or ask for another
    with _lock:
        starter = _starters.setdefault(key, starter)
        while len(_starters) > _MAX_STARTERS:
            _starters.popitem(last=False)
        return starter


def initial_variables(blueprint, seed: int) -> dict[str, np.ndarray]:
    """Initial weights of a network, seed states of layers such as Dropout included.

    Parameters
    ----------
    blueprint : object
        ``build()`` makes a `keras.Model`; ``key`` is hashable, or None where equality is unknown.
    seed : int
        The same seed gives the same bits. No global seed is read or set.

    Returns
    -------
    variables : dict of str to ndarray
        Fresh copies by variable path, in the order of ``model.variables``.
    """
    refuse_after_fork()
    if blueprint.key is None:
        return _all_values(build(blueprint, seed))
    return _starter((blueprint.key, environment()), blueprint).variables(seed)
