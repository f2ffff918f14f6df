import collections
import contextlib
import functools
import gc
import importlib.metadata
import os
import random
import secrets
import sys
import types
import typing
from pathlib import Path

# Before anything imports TensorFlow or matplotlib.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MPLBACKEND"] = "Agg"

# What takes long to import is imported in functions: a process that only hands out tests to others
# would import it before they start.
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# A first fit of an architecture takes seconds: neither deadlines nor health checks know that.
_PATIENT = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile(
    "quick", max_examples=15, derandomize=True, stateful_step_count=8, database=None, **_PATIENT
)
settings.register_profile("thorough", max_examples=250, stateful_step_count=25, **_PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def _patched():
    """Where importing scikeras puts methods of its own, for the rest of the process."""
    import keras

    return [
        (keras.Model, "__reduce__"),
        (keras.Model, "__deepcopy__"),
        (keras.losses.Loss, "__reduce__"),
        (keras.metrics.Metric, "__reduce__"),
        (keras.optimizers.Optimizer, "__reduce__"),
    ]


@functools.cache
def _keras_own():
    """The methods of Keras itself: first called before anything imports scikeras."""
    return [cls.__dict__.get(name) for cls, name in _patched()]


def _put(methods):
    for (cls, name), method in zip(_patched(), methods, strict=True):
        if method is not None:
            setattr(cls, name, method)
        elif name in cls.__dict__:
            delattr(cls, name)


def pytest_addoption(parser):
    parser.addoption(
        "--xla",
        action="store_true",
        help="compile with XLA as early as users do, in tests outside tests/training, too",
    )
    parser.addoption("--slow", action="store_true", help="run what is marked `slow`, too")


def pytest_configure(config):
    config.addinivalue_line("markers", "xla: a test that compiles with XLA as early as users do")
    config.addinivalue_line(
        "markers",
        "slow(first=0): a test that only --slow runs, or its name on the command line; "
        "its first cases always run",
    )
    hands_out_tests = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if not hands_out_tests:
        # Its import searches all loaded modules for ufuncs: after TensorFlow, 3 seconds longer.
        import skops.io  # noqa: F401

        _keras_own()


# What older versions that pyproject.toml admits cannot do, by words in the names of tests.
_NEWER = {
    "test_what_the_error_says_works[polars]": ("scikit-learn", (1, 8)),
    "test_the_model_returns_what_the_estimator_returns[temperature": ("scikit-learn", (1, 8)),
    # Before, float32 is scaled in float32.
    "test_steps_become_layers[StandardScaler(with_std=False)]": ("scikit-learn", (1, 8)),
    "test_large_columns_that_vary_little_keep_their_precision[float32]": ("scikit-learn", (1, 8)),
    "test_a_scaler_far_from_zero_computes_as_scikit_learn_does[float32]": ("scikit-learn", (1, 8)),
    # Before, its `write_feather` ends the process.
    "test_batches_that_are_not_alike_make_one_table[views of words]": ("pyarrow", (25, 0)),
    "check_positive_only_tag_during_fit": ("scikit-learn", (1, 8)),  # it changes integers in place
    # A failure by chance cannot be expected.
    "check_sample_weight_equivalence": ("scikit-learn", (1, 8)),
    # Before, the last bits of a product depend on threads, and on how it is computed.
    "test_saved_files_need_nothing_of_skstack": ("tensorflow", (2, 21)),
    "test_scores_do_not_depend_on_the_backend": ("tensorflow", (2, 21)),
}


def pytest_collection_modifyitems(config, items):
    _skip_what_needs_newer_versions(items)
    if not config.getoption("--slow") and not any("::" in arg for arg in config.args):
        _deselect_slow(config, items)


def _deselect_slow(config, items):
    cases, left_out = collections.Counter(), []
    for item in items:
        if mark := item.get_closest_marker("slow"):
            test = item.nodeid.partition("[")[0]
            cases[test] += 1
            if cases[test] > mark.kwargs.get("first", 0):
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        left_out = set(left_out)
        items[:] = [item for item in items if item not in left_out]


def _skip_what_needs_newer_versions(items):
    for word, (package, needed) in _NEWER.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(package)
            if tuple(map(int, version.split(".")[:2])) < needed:
                reason = f"needs {package}>={'.'.join(map(str, needed))}"
                for item in items:
                    if word in item.name:
                        item.add_marker(pytest.mark.skip(reason=reason))


def _patch_engines(patched):
    from skstack._training import engines

    patched.setattr(engines, "_STEPS_WORTH_XLA", {"masked": 3_000, "exact": 10_000})
    patched.setattr(engines, "_STEPS_WORTH_A_LOOP", 1_000)


_ENTROPY = random.Random()
secrets.randbelow = _ENTROPY.randrange  # the seeds of estimators with random_state=None


@pytest.fixture(autouse=True, scope="session")
def keep_few_programs():
    """Smaller caches than those of users, who have fewer architectures and more memory."""
    from skstack._training import predict, program

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(program.POOL._shared, "_limit", 24)
        patched.setattr(program.POOL._idle, "_limit", 6)
        patched.setattr(predict._PREDICTORS, "_limit", 24)
        yield


@pytest.fixture(autouse=True, scope="session")
def keep_signatures():
    """Signatures of classes, which scikit-learn reads anew in every clone: 6 % of the time."""
    from sklearn.base import BaseEstimator

    read = functools.lru_cache(maxsize=None)(BaseEstimator._get_param_names.__func__)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(BaseEstimator, "_get_param_names", classmethod(lambda cls: list(read(cls))))
        yield


@pytest.fixture(autouse=True, scope="session")
def arrays_are_not_frames():
    """Without this, scikit-learn 1.9 takes a tenth of a millisecond to see that of each array."""
    from narwhals.stable.v2 import dependencies as frames

    with pytest.MonkeyPatch.context() as patched:
        for name in ("is_into_dataframe", "is_into_series"):
            patched.setattr(frames, name, _false_for_arrays(getattr(frames, name)))
        yield


@pytest.fixture(autouse=True, scope="session")
def operations_have_one_stack():
    """Without this, TensorFlow reads Python's stack for each operation that it traces.

    Under pytest the stack is deep, and reading it takes 6 % of the time.
    """
    from tensorflow.python.util import tf_stack

    stack = tf_stack.extract_stack()
    # Read now: TensorFlow holds no references to its functions, and would read it much later.
    list(stack)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tf_stack, "extract_stack", lambda stacklevel=1: stack)
        yield


@pytest.fixture(autouse=True, scope="session")
def operations_know_their_dtypes():
    """Without this, TensorFlow writes the text of an error for each dtype that it accepts.

    It does so for each argument of each operation that it traces: 4 % of the time.
    """
    from tensorflow.python.framework import op_def_library

    check = op_def_library._SatisfiesTypeConstraint

    def checked(dtype, attr_def, param_name):
        if dtype not in attr_def.allowed_values.list.type:
            check(dtype, attr_def, param_name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(op_def_library, "_SatisfiesTypeConstraint", checked)
        yield


@pytest.fixture(autouse=True, scope="session")
def protocols_know_their_members():
    """Before 3.12, Python lists the members of a protocol in each `isinstance`: 2 % of the time."""
    with pytest.MonkeyPatch.context() as patched:
        if sys.version_info < (3, 12):
            for name in ("_get_protocol_attrs", "_is_callable_members_only"):
                patched.setattr(typing, name, functools.cache(getattr(typing, name)))
        yield


def _false_for_arrays(function):
    return lambda value: type(value) is not np.ndarray and function(value)


@pytest.fixture(autouse=True, scope="module")
def compile_rarely(request):
    """XLA only for long fits: most tests train a network once, for a second or less.

    Compiling with XLA takes as long as some 3,000 steps in a plain graph. tests/training, which
    compares all engines with `Model.fit`, and what is marked `xla` compile as users do.
    """
    with pytest.MonkeyPatch.context() as patched:
        if not (_as_users_do(request.node) or request.path.parent.name == "training"):
            _patch_engines(patched)
        yield patched


@pytest.fixture(autouse=True, scope="module")
def optimize_rarely(request):
    """Run graphs without TensorFlow's optimizer, except in tests/training and with --slow.

    It optimizes each graph before its first step, which takes a tenth of the time of most tests.
    """
    import tensorflow as tf

    from skstack._training import predict, program

    as_users_do = _as_users_do(request.node) or request.config.getoption("--slow")
    left_out = not as_users_do and request.path.parent.name != "training"
    optimizer, name = tf.config.optimizer, "disable_meta_optimizer"
    if optimizer.get_experimental_options().get(name, False) != left_out:
        optimizer.set_experimental_options({name: left_out})
        # The same network gives other bits now, so nothing that was traced may be used again.
        program.POOL._shared.clear()
        program.POOL._idle.clear()
        predict._PREDICTORS.clear()


@pytest.fixture(autouse=True)
def compile_as_users_do(request, compile_rarely):
    """For tests that are marked `xla`, such as those that train in another process, too."""
    if not _as_users_do(request.node):
        yield
        return
    patched = not _as_users_do(request.node.getparent(pytest.Module))
    compile_rarely.undo()
    yield
    if patched:
        _patch_engines(compile_rarely)


def _as_users_do(node):
    return node.config.getoption("--xla") or node.get_closest_marker("xla") is not None


@pytest.fixture(scope="session")
def convert_without_copies():
    """Without this, tf2onnx copies the graph before each of its passes: a third of an export."""
    with pytest.MonkeyPatch.context() as patched:
        with contextlib.suppress(ImportError):
            from tf2onnx import optimizer

            patched.setattr(optimizer, "copy", types.SimpleNamespace(deepcopy=lambda graph: graph))
        yield


@pytest.fixture(scope="module")
def eager_keras():
    """Keras' own `fit` and `predict` without tracing, which takes half a second for each network.

    For tests of what is done with wrappers of others. Networks that skstack trains are traced.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def pytest_collection_finish():
    """Exempt imported modules from garbage collection, which otherwise takes a second each time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config):
    """Nor is what the last tests left collected at the end, except with --slow.

    pytest does so for warnings of files that were not closed, and Python when it ends.
    """
    if not config.getoption("--slow"):
        gc.freeze()


def pytest_collectstart(collector):
    """Nor does one fail by chance for what a module draws when it is imported."""
    _seed(collector.nodeid)


@pytest.hookimpl(tryfirst=True)  # before fixtures that fit
def pytest_runtest_setup(item):
    """What no test seeds is drawn from the name of the test, so that no run fails by chance."""
    _seed(item.nodeid)


def _seed(name):
    _ENTROPY.seed(name)
    np.random.seed(_ENTROPY.randrange(2**32))  # noqa: NPY002
    random.seed(name)  # the initial weights of Keras' layers without a seed


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data():
    """A function that reads one of the larger data sets beside the checkout, or skips the test."""
    import pandas as pd

    def read(name):
        path = SHARED_DATA / f"{name}.csv.gz"
        if not path.exists():
            pytest.skip(f"the data set {name!r} does not lie beside the checkout (shared/data)")
        return pd.read_csv(path)

    return read


@pytest.fixture(autouse=True)
def keras_own_methods():
    """Keras without the patches of scikeras, whichever test module imported that."""
    _put(_keras_own())
    yield
    _put(_keras_own())


@pytest.fixture
def patches_of_scikeras(keras_own_methods):
    """Keras as it is for those who have imported scikeras."""
    from scikeras import _saving_utils as theirs

    _put(
        [
            theirs.pack_keras_model,
            theirs.deepcopy_model,
            theirs.pack_keras_loss,
            theirs.pack_keras_metric,
            theirs.pack_keras_optimizer,
        ]
    )
