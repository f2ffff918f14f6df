"""One formula for arrays and tensors."""

import numpy as np
import pytest
from keras import ops

from skstack._training.formulas import entropy, log_odds, pooled, with_priors

RNG = np.random.default_rng(0)
POOLINGS = ("flatten", "mean", "max", "last")


def plain(x, kept, pooling):
    """One row of shape (steps, ..., channels), some of whose steps are masked."""
    if pooling == "flatten":
        return np.where(kept.reshape(-1, *[1] * (x.ndim - 1)), x, 0).ravel()
    x = x[kept]
    if not len(x):
        return np.zeros(x.shape[-1])
    if pooling == "last":
        return x[-1].reshape(-1, x.shape[-1])[-1]
    return getattr(x.reshape(-1, x.shape[-1]), pooling)(axis=0)


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 2, 3)])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_ignores_masked_steps(pooling, shape):
    x = RNG.normal(size=shape).astype(np.float32)
    x[0, 0] = np.nan  # masked below
    mask = np.array(
        [[0, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=bool
    )
    expected = [plain(*row, pooling) for row in zip(x, mask, strict=True)]
    result = pooled(ops.convert_to_tensor(x), pooling, ops, ops.convert_to_tensor(mask))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_arrays_and_tensors_are_pooled_equally(pooling):
    x = RNG.normal(size=(5, 4, 2, 3)).astype(np.float32)
    expected = [plain(row, np.ones(4, bool), pooling) for row in x]
    np.testing.assert_allclose(pooled(x, pooling, np), expected, rtol=1e-6)
    result = pooled(ops.convert_to_tensor(x), pooling, ops)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_formulas_of_probabilities_agree():
    p = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    tensor = ops.convert_to_tensor(p, dtype="float32")
    assert entropy(p, np).ravel() == pytest.approx([1.02965, 0, np.log(2)], abs=1e-5)
    np.testing.assert_allclose(entropy(tensor, ops), entropy(p, np), atol=1e-6)
    np.testing.assert_allclose(log_odds(tensor, 1 - tensor, ops), log_odds(p, 1 - p, np), atol=1e-5)
    ratio = np.array([0.0, 1.0, 3.0])
    expected = [[0, 1 / 6, 5 / 6], [1, 0, 0], [0, 0.25, 0.75]]
    np.testing.assert_allclose(with_priors(p, ratio, np), expected)
    float32 = ratio.astype(np.float32)
    np.testing.assert_allclose(with_priors(tensor, float32, ops), expected, atol=1e-6)
