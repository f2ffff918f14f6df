"""The fixtures of scikit-learn's own conftest, and what every test of a peer must do."""

import joblib
import numpy as np
import pytest

from peers.stand_ins import USES

# Peers do not make errors of their own warnings. Those that are ours still are.
PEERS_WARNINGS = pytest.mark.filterwarnings("default", "error:::skstack")


def pytest_configure(config):
    config.addinivalue_line("markers", "thread_unsafe: a mark of scikit-learn's own")


def pytest_collection_modifyitems(config, items):
    by_module = {}
    for item in items:
        if hasattr(getattr(item, "module", None), "SUITE"):
            by_module.setdefault(item.module, []).append(item)
    left_out = []
    for module, tests in by_module.items():
        module.COLLECTED = {item.name for item in tests}
        for item in tests:
            item.add_marker(PEERS_WARNINGS, append=False)
            if module.SUITE.leaves_out(item.name):
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


@pytest.fixture(autouse=True)
def uses_ours(request):
    """A test that passes without an estimator of ours says nothing about ours."""
    USES.clear()
    yield
    suite = getattr(request.module, "SUITE", None)
    if suite is not None and suite.replaced and request.node.originalname in suite.tests:
        assert USES, "no estimator of ours was used: leave this test out"


@pytest.fixture(autouse=True)
def in_threads():
    """``n_jobs=2`` is two threads: a process would import TensorFlow and compile all it fits."""
    with joblib.parallel_config(backend="threading"):
        yield


@pytest.fixture
def global_random_seed():
    return 42


@pytest.fixture(params=[np.float32, np.float64])
def global_dtype(request):
    return request.param


@pytest.fixture
def pyplot():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.close("all")
    yield pyplot
    pyplot.close("all")
