"""Numeric columns on their way into a network: scaling, and embeddings of single columns.

Everything is made of Keras' own layers, so a saved network needs no class of skstack. What is
learned from training rows before the first step (moments, quantiles, edges of bins) are weights
that are not trained: their shapes depend on parameters alone, so all folds share one program.
"""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator

from skstack._base.params import hint_at_parameters
from skstack.preprocessing._numeric_maps import (
    Distribution,
    robust_center_and_scale,
    smoothly_clipped,
    tree_edges,
)

SCALINGS = ("standard", "quantile", "robust", None)
BINS = ("quantile", "tree")
N_KNOTS = 65  # of the quantile map of a column
# With more interquartile ranges in a standard deviation, float32 hardly tells quantiles apart.
_MOST_RANGES = 1_000


def check_scaling(owner, scaling, accepted=SCALINGS):
    """Check a recipe's parameter ``scaling``."""
    if not isinstance(scaling, str | None) or scaling not in accepted:
        raise ValueError(f"scaling={scaling!r} of {owner} must be one of {list(accepted)}.")


def check_count(owner, name, value):
    """Check that a parameter is an int >= 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} of {owner} must be an int >= 1.")


def check_embedding(owner, embedding):
    """Check a recipe's parameter ``numeric_embedding``."""
    if embedding is None:
        return
    if not isinstance(embedding, NumericEmbedding):
        raise TypeError(
            f"numeric_embedding={embedding!r} of {owner} must be PiecewiseLinear(...), "
            "Periodic(...) or None."
        )
    embedding._validate_params()


def _einsum(equation, shape, name, **settings):
    from keras.layers import EinsumDense

    return EinsumDense(equation, output_shape=shape, name=name, **settings)


_FIXED = {"trainable": False, "dtype": "float32"}


def scaled(x, spec, block, scaling):
    """A standardised numeric block, of shape (batch, columns), scaled in another way."""
    from keras.layers import UnitNormalization

    (width,), name, label = block.shape, block.name, spec.layer_name
    if scaling == "quantile":
        bins = _bins(x, N_KNOTS - 1, spec, f"{name}_quantiles")
        scores = label(f"{name}_scores")
        return _einsum("bfT,fT->bf", (width,), scores, bias_axes="f", **_FIXED)(bins)
    if scaling == "robust":
        # z / sqrt(1 + (z/3)^2) is 3 times the first entry of (z/3, 1) divided by its length.
        pair = label(f"{name}_pair")
        x = _einsum("bf,fi->bfi", (width, 2), pair, bias_axes="i", **_FIXED)(x)
        x = UnitNormalization(axis=-1, dtype="float32", name=label(f"{name}_clip"))(x)
        return _einsum("bfi,fi->bf", (width,), label(f"{name}_clipped"), **_FIXED)(x)
    return x


def _bins(x, n_bins, spec, name):
    """Position of each value in each bin: 0 below, 1 above; (batch, columns) to one more axis.

    A bin that is not used has the slope 0.
    """
    from keras.layers import ReLU

    shape = (x.shape[-1], n_bins)
    label = spec.layer_name
    positions = _einsum("bf,fT->bfT", shape, label(name), bias_axes="fT", **_FIXED)(x)
    return ReLU(max_value=1.0, dtype="float32", name=label(f"{name}_position"))(positions)


class NumericEmbedding(BaseEstimator):
    """Base of the embeddings of numeric columns; not for direct use."""

    def _validate_params(self):
        raise NotImplementedError

    def apply(self, x, spec, name):
        """Embed the columns of a scaled block.

        Parameters
        ----------
        x : keras.KerasTensor of shape (batch, columns)
        spec : Spec
        name : str
            Name of the block, with which the names of the layers begin.

        Returns
        -------
        keras.KerasTensor of shape (batch, columns, width)
        """
        raise NotImplementedError


class PiecewiseLinear(NumericEmbedding):
    """Embedding of numeric columns that is linear between the edges of bins.

    Each column has its own weights. The embedding starts as a linear one, and learns to bend at the
    edges of its bins.

    Parameters
    ----------
    n_bins : int, default=32
        Largest number of bins of a column, >= 1. Columns with fewer distinct values have fewer.

    width : int, default=8
        Size of the vector that each column becomes, >= 1.

    bins : {"quantile", "tree"}, default="quantile"
        How the edges are chosen from the training rows. ``"quantile"``: half of them quantiles of
        the rows, half of the distinct values; ``"tree"``: thresholds of a decision tree that
        predicts y from the column (an autoencoder has no y).

    References
    ----------
    .. [1] Y. Gorishniy, I. Rubachev and A. Babenko, "On Embeddings for Numerical Features in
       Tabular Deep Learning", NeurIPS 2022.

    Examples
    --------
    >>> from skstack.networks import MLP, PiecewiseLinear
    >>> MLP(numeric_embedding=PiecewiseLinear(n_bins=16))
    MLP(numeric_embedding=PiecewiseLinear(n_bins=16))
    """

    @hint_at_parameters
    def __init__(self, n_bins=32, width=8, *, bins="quantile"):
        self.n_bins = n_bins
        self.width = width
        self.bins = bins

    def _validate_params(self):
        check_count(type(self).__name__, "n_bins", self.n_bins)
        check_count(type(self).__name__, "width", self.width)
        if not isinstance(self.bins, str) or self.bins not in BINS:
            raise ValueError(f"bins={self.bins!r} of PiecewiseLinear must be 'quantile' or 'tree'.")

    def apply(self, x, spec, name):
        """See `NumericEmbedding`."""
        from keras.initializers import RandomUniform
        from keras.layers import Add

        shape = (x.shape[-1], self.width)
        label = spec.layer_name
        bound = 1.0 / math.sqrt(self.width)
        linear = _einsum(
            "bf,fe->bfe",
            shape,
            label(f"{name}_linear"),
            bias_axes="fe",
            kernel_initializer=RandomUniform(-bound, bound),
            bias_initializer=RandomUniform(-bound, bound),
        )(x)
        positions = _bins(x, self.n_bins, spec, f"{name}_{self.bins}_bins")
        bends = _einsum("bfT,fTe->bfe", shape, label(f"{name}_bends"), kernel_initializer="zeros")(
            positions
        )
        return Add(name=label(f"{name}_embedding"))([linear, bends])


class Periodic(NumericEmbedding):
    """Embedding of numeric columns by cosines of learned frequencies.

    A value x becomes the ``width - 1`` outputs of a linear layer of
    ``cos(2 pi frequency x + phase)``, and x itself (the densely connected "PBLD" embedding).

    Parameters
    ----------
    n_frequencies : int, default=16
        Number of frequencies of a column, >= 1.

    width : int, default=4
        Size of the vector that each column becomes, >= 2.

    frequency_scale : float, default=0.1
        Standard deviation of the initial frequencies, in cycles per unit of the scaled column, > 0.

    References
    ----------
    .. [1] D. Holzmueller, L. Grinsztajn and I. Steinwart, "Better by Default: Strong Pre-Tuned MLPs
       and Boosted Trees on Tabular Data", NeurIPS 2024.

    Examples
    --------
    >>> from skstack.networks import MLP, Periodic
    >>> MLP(numeric_embedding=Periodic(frequency_scale=0.2))
    MLP(numeric_embedding=Periodic(frequency_scale=0.2))
    """

    @hint_at_parameters
    def __init__(self, n_frequencies=16, width=4, *, frequency_scale=0.1):
        self.n_frequencies = n_frequencies
        self.width = width
        self.frequency_scale = frequency_scale

    def _validate_params(self):
        check_count(type(self).__name__, "n_frequencies", self.n_frequencies)
        check_count(type(self).__name__, "width", self.width)
        if self.width < 2:
            raise ValueError(f"width={self.width!r} of Periodic must be an int >= 2.")
        scale = self.frequency_scale
        if not isinstance(scale, Real) or isinstance(scale, bool) or not 0 < scale < math.inf:
            raise ValueError(f"frequency_scale={scale!r} of Periodic must be a number > 0.")

    def apply(self, x, spec, name):
        """See `NumericEmbedding`."""
        from keras import ops
        from keras.initializers import RandomNormal, RandomUniform
        from keras.layers import Concatenate, Rescaling, Reshape

        n_columns, (hidden, width) = x.shape[-1], (self.n_frequencies, self.width - 1)
        label = spec.layer_name
        angles = _einsum(
            "bf,fe->bfe",
            (n_columns, hidden),
            label(f"{name}_frequencies"),
            bias_axes="fe",
            kernel_initializer=RandomNormal(stddev=self.frequency_scale),
            bias_initializer=RandomUniform(-math.pi, math.pi),
        )(Rescaling(2.0 * math.pi, name=label(f"{name}_radians"))(x))
        bound = 1.0 / math.sqrt(hidden)
        waves = _einsum(
            "bfe,fed->bfd",
            (n_columns, width),
            label(f"{name}_waves"),
            bias_axes="fd",
            kernel_initializer=RandomUniform(-bound, bound),
            bias_initializer=RandomUniform(-bound, bound),
        )(ops.cos(angles))
        values = Reshape((n_columns, 1), name=label(f"{name}_values"))(x)
        return Concatenate(name=label(f"{name}_embedding"))([waves, values])


# Learned from training rows ----------------------------------------------------------------------


def standardizing_variables(block_name, mean, scale, *, steps=False):
    """Variables, by path, of the two layers that standardise a numeric block.

    ``mean`` and ``scale``, of shape (n_columns,), are moments of the training rows; a scale of 0
    counts as 1. The layers of a sequence (``steps``) hold diagonal matrices.
    """
    mean = np.asarray(mean, dtype=np.float64)
    scale = np.asarray(scale, dtype=np.float64)
    scale = np.where(scale == 0.0, 1.0, scale)
    shaped = np.diag if steps else np.asarray
    return {
        f"{block_name}_center/kernel": shaped(np.ones(mean.shape, dtype=np.float32)),
        f"{block_name}_center/bias": (-mean).astype(np.float32),
        f"{block_name}_scale/kernel": shaped((1.0 / scale).astype(np.float32)),
    }


def learned_variables(spec, block_name, start, few, moments):
    """Variables, by path, of the layers of a numeric block that are learned before training.

    ``start`` holds the initial variables of the network, which tell its layers, ``moments`` mean
    and scale of the columns. ``few()`` returns training rows, all or, of a large table, some:
    arrays by block in the units of X; targets and whether they are classes, for bins of a decision
    tree, or None; and weights or None.
    """
    names = {path.partition("/")[0] for path in start}
    roles = ("quantiles", "scores", "pair", "clipped", *(f"{kind}_bins" for kind in BINS))
    layers = {role: spec.layer_name(f"{block_name}_{role}") for role in roles}
    robust, by_quantiles = layers["pair"] in names, layers["quantiles"] in names
    kind = next((kind for kind in BINS if layers[f"{kind}_bins"] in names), None)
    learned: dict = {}
    if not (robust or by_quantiles or kind is not None):
        return learned
    inputs, target, weights = few()
    columns = np.asarray(inputs[block_name])
    if f"{block_name}_center" not in names:
        moments = np.zeros(columns.shape[1]), np.ones(columns.shape[1])
    if robust:
        moments = _robust_moments(columns, weights)
        learned.update(standardizing_variables(block_name, *moments))
        learned.update(_clip_variables(layers, columns.shape[1]))
    elif by_quantiles and f"{block_name}_center" in names:
        moments = _moments_for_quantiles(columns, weights, *moments)
        learned.update(standardizing_variables(block_name, *moments))
    if not by_quantiles and kind is None:
        return learned
    bins = layers.get(f"{kind}_bins")
    edges, knots = [], []
    for index, (mean, scale) in enumerate(zip(*moments, strict=True)):
        column = (np.asarray(columns[:, index], dtype=np.float64) - mean) / scale
        if robust:
            column = smoothly_clipped(column)
        if by_quantiles:
            knots.append(_quantile_knots(column, weights))
            column = np.interp(column, *knots[-1])
        if kind is not None:
            n_bins = start[f"{bins}/kernel"].shape[1]
            edges.append(_edges(column, n_bins, kind == "tree", target, weights))
    if knots:
        learned.update(_knot_variables(layers, knots, start))
    if edges:
        learned.update(_bin_variables(bins, edges, start))
    return learned


def _robust_moments(columns, weights):
    pairs = [robust_center_and_scale(column, weights) for column in columns.T]
    return tuple(np.array(part) for part in zip(*pairs, strict=True))


def _moments_for_quantiles(columns, weights, mean, scale):
    """Mean and scale; of columns with extreme outliers, median and interquartile range.

    The quantile map that follows is the same for both, but for rounding.
    """
    center, width = _robust_moments(columns, weights)
    far = np.asarray(scale) > _MOST_RANGES * width
    return np.where(far, center, mean), np.where(far, width, scale)


def _clip_variables(layers, width):
    """Variables of the layers that clip smoothly."""
    pair, clipped = layers["pair"], layers["clipped"]
    return {
        f"{pair}/kernel": np.tile(np.float32([1 / 3, 0]), (width, 1)),
        f"{pair}/bias": np.float32([0, 1]),
        f"{clipped}/kernel": np.tile(np.float32([3, 0]), (width, 1)),
    }


def _quantile_knots(column, weights):
    """Values of a column, and their normal scores."""
    distribution = Distribution.of(column, weights)
    chosen = distribution.spread(N_KNOTS)
    return distribution.values[chosen], distribution.scores()[chosen]


def _edges(column, n_bins, by_tree, target, weights):
    if not by_tree:
        distribution = Distribution.of(column, weights)
        return distribution.values[distribution.spread(n_bins + 1)]
    if target is None:
        raise ValueError(
            "bins='tree' of PiecewiseLinear needs y, which an autoencoder does not have; use "
            "bins='quantile'."
        )
    y, classify = target
    return tree_edges(column, y, n_bins, classify=classify, weights=weights)


def _knot_variables(layers, knots, start):
    name = layers["scores"]
    kernel = np.zeros_like(start[f"{name}/kernel"])
    for row, (_, scores) in zip(kernel, knots, strict=True):
        row[: len(scores) - 1] = np.diff(scores)
    return {
        **_bin_variables(layers["quantiles"], [values for values, _ in knots], start),
        f"{name}/kernel": kernel,
        f"{name}/bias": np.float32([scores[0] for _, scores in knots]),
    }


def _bin_variables(name, edges, start):
    """Slopes and offsets of bins; those that are not used have the slope 0."""
    slopes = np.zeros(start[f"{name}/kernel"].shape)
    offsets = np.zeros_like(slopes)
    for index, each in enumerate(edges):
        n = len(each) - 1
        slopes[index, :n] = 1.0 / np.diff(each)
        offsets[index, :n] = -each[:-1] * slopes[index, :n]
    return {f"{name}/kernel": slopes.astype(np.float32), f"{name}/bias": offsets.astype(np.float32)}
