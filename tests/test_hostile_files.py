"""Files that were made to hurt: refused before Keras or skops reads them, or harmless.

`make test` tries each kind of attack a few times, the same ones each time; `make fuzz` tries each
some hundred times with new mutations (the profile "thorough", registered in `conftest.py`).
"""

import base64
import contextlib
import copy
import functools
import hashlib
import io
import json
import marshal
import os
import random
import resource
import struct
import sys
import tempfile
import threading
import zipfile

import h5py
import joblib
import keras
import numpy as np
import pytest
import skops.io
from hypothesis import given as given_that
from hypothesis import strategies as st
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from keras import layers
from scipy import sparse
from sklearn.cluster import FeatureAgglomeration
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC, NuSVR, OneClassSVM

import skstack
from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack.losses import TeacherLoss
from skstack.networks import MLP
from skstack.networks._model_parameter import load_model

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
Y = np.arange(40) % 2
QUICK = {"epochs": 1, "random_state": 0}
MARK = os.path.join(tempfile.gettempdir(), f"skstack-mark-{os.getpid()}.png")
pytestmark = [
    pytest.mark.filterwarnings("ignore:y contains no unlabeled samples"),
    pytest.mark.filterwarnings("ignore:Model .* had a build config"),
]

# Whatever code from a file would do ---------------------------------------------------------------

_WATCHED = threading.local()
# No hook can be removed: while nothing is watched, this one is a function of C that does nothing.
_HOOK = functools.partial({}.get)
_FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn",
              "os.fork", "ctypes.dlopen", "urllib.", "pickle.find_class")  # fmt: skip
_OWN_PACKAGES = ("absl", "google", "h5py", "imblearn", "keras", "ml_dtypes", "numpy", "psutil",
                 "scipy", "skops", "sklearn", "skstack", "tensorflow")  # fmt: skip


class Harm(Exception):
    """What was read from a file did something outside of it."""


def _hook(event, arguments):
    seen = getattr(_WATCHED, "seen", None)
    if seen is None:
        return
    harm = event.startswith(_FORBIDDEN)
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        harm = not path.startswith(_WATCHED.folders)
    if event == "import":
        name = arguments[0].partition(".")[0]
        harm = name not in _OWN_PACKAGES and name not in sys.stdlib_module_names
    if harm:
        seen.append((event, str(arguments[0])))
        raise Harm(event, arguments[0])


@functools.cache
def _add_hook():
    sys.addaudithook(_HOOK)


@contextlib.contextmanager
def watched(*folders):
    """Fail where something outside of these folders is opened, or a process or socket is made."""
    libraries = [
        os.path.realpath(path) for path in {sys.prefix, sys.base_prefix, *sys.path} if path
    ]
    _WATCHED.folders = (*map(os.path.realpath, map(str, folders)), *libraries, "/proc/")
    _WATCHED.seen = seen = []
    _add_hook()
    _HOOK.__setstate__((_hook, (), {}, {}))
    try:
        yield
    finally:
        _HOOK.__setstate__(({}.get, (), {}, {}))
        _WATCHED.seen = None
    assert seen == []
    assert not os.path.exists(MARK)
    assert keras.config.floatx() == "float32"


def peak():
    """The largest size of this process so far, in MB."""
    with open("/proc/self/status") as status:
        (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


@contextlib.contextmanager
def within(most):
    """Fail where the process grows by more than this many MB, if only for a moment."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        yield
        return
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")  # the peak begins at what is held now
    before = peak()
    yield
    assert peak() - before < most


# Honest files, and how they are changed -----------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
def halved(x):
    return x / 2


@keras.saving.register_keras_serializable("tests")
class Scaled(layers.Layer):
    """A user's layer, whose config holds parts."""

    def __init__(self, start="ones", inner=None, **kwargs):
        super().__init__(**kwargs)
        self.start, self.inner = keras.initializers.get(start), inner

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer=self.start)
        self.constant = keras.Variable("ones", shape=(shape[-1],), trainable=False)

    def call(self, x, times=1.0):
        x = x if self.inner is None else self.inner(x)
        return x * self.scale * self.constant * times

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        parts = {"start": serialize(self.start), "inner": serialize(self.inner)}
        return {**super().get_config(), **parts}

    @classmethod
    def from_config(cls, config):
        config["inner"] = keras.saving.deserialize_keras_object(config["inner"])
        return cls(**config)


def network(*, operations=True):
    inputs = keras.Input((4,), name="rows")
    x = layers.Dense(
        4, "relu", kernel_regularizer="l2", kernel_constraint="max_norm", name="encoder"
    )(inputs)
    x = keras.Sequential([keras.Input((4,)), layers.Dense(3, halved)], name="inner")(x)
    x = Scaled("zeros" if operations else "ones")(layers.BatchNormalization()(x), times=2.0)
    x = layers.Bidirectional(layers.GRU(2))(layers.RepeatVector(2)(x))
    x = x * 2 + 1 if operations else x
    model = keras.Model(inputs, layers.Dense(1, "sigmoid", name="last")(x))
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
    loss = keras.losses.BinaryFocalCrossentropy()
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=[keras.metrics.AUC()])
    return model


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return buffer.getvalue()


def sealed(members):
    """A file of ours, as if it had been written so."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member)
        archive.comment = b"skstack sha256 " + b"0" * 64
    body = buffer.getvalue()[:-79]
    return body + b"skstack sha256 " + hashlib.sha256(body).hexdigest().encode()


def not_reached(*_, **__):
    raise Harm("not_reached")


class Honest:
    """Files as they are written, by kind; their parts are changed one by one."""

    def __init__(self, folder):
        for name, operations in (("a.keras", True), ("a.h5", False)):
            network(operations=operations).save(folder / name)
        self.keras = members_of((folder / "a.keras").read_bytes())
        self.h5 = (folder / "a.h5").read_bytes()
        part = make_pipeline(TfidfTransformer(), KNeighborsClassifier(algorithm="brute"))
        part.fit(sparse.csr_matrix(abs(X)), Y)
        stack = StackedKerasClassifier(
            [("a", KerasFeatureTransformer(network())), ("b", SelfTrainingClassifier(part))],
            downstream=KerasClassifier(MLP((2,)), **QUICK), cv=2, random_state=0,
        )  # fmt: skip
        skstack.save(stack, folder / "a.skstack")
        self.skstack = members_of((folder / "a.skstack").read_bytes())
        self.part = self.skstack["parts/1.skops"] if "parts/1.skops" in self.skstack else next(
            member for name, member in self.skstack.items() if name.endswith(".skops")
        )  # fmt: skip
        self.folder = folder

    def config(self, suffix):
        if suffix != ".h5":
            return json.loads(self.keras["config.json"])
        with h5py.File(io.BytesIO(self.h5)) as file:
            return json.loads(file.attrs["model_config"])

    def with_config(self, config, suffix):
        """A file whose network has another config, as a value or as text."""
        text = config if isinstance(config, (str, bytes)) else json.dumps(config)
        if suffix == ".h5":
            return self.with_hdf5(lambda file: file.attrs.modify("model_config", text), suffix)
        return self.with_members({"config.json": text}, suffix)

    def with_members(self, changed, suffix, **kwargs):
        content = zipped({**self.keras, **changed}, **kwargs)
        if suffix == ".keras":
            return content
        name = next(name for name in self.skstack if name.startswith("models/"))
        return sealed({**self.skstack, name: content})

    def with_hdf5(self, change, suffix):
        """A file whose HDF5 part was changed."""
        content = self.h5 if suffix == ".h5" else self.keras["model.weights.h5"]
        buffer = io.BytesIO(content)
        with h5py.File(buffer, "r+") as file:
            change(file)
        if suffix == ".h5":
            return buffer.getvalue()
        return self.with_members({"model.weights.h5": buffer.getvalue()}, suffix)

    def with_part(self, change):
        """A file of ours whose part of scikit-learn was changed: its schema, or other members."""
        members = members_of(self.part)
        schema = json.loads(members["schema.json"])
        changed = change(schema, members) or {}
        members = {**members, "schema.json": json.dumps(schema), **changed}
        name = next(name for name, each in self.skstack.items() if each == self.part)
        return sealed({**self.skstack, name: zipped(members)})

    def read(self, content, suffix):
        """Read a file as a user would, and see that nothing happens outside of it."""
        path = self.folder / f"hostile{suffix}"
        path.write_bytes(content)
        temporary = self.folder / "temporary"
        temporary.mkdir(exist_ok=True)
        before, tempfile.tempdir = tempfile.tempdir, str(temporary)
        try:
            with watched(path, temporary):
                if suffix != ".skstack":
                    return load_model(path)
                return skstack.load(path, trusted=[Scaled, halved])
        finally:
            tempfile.tempdir = before

    def refused(self, content, suffix, match=None, *, before_keras=True, note=""):
        with pytest.MonkeyPatch.context() as patch:
            if before_keras:
                patch.setattr(keras.models, "load_model", not_reached)
                patch.setattr(skops.io, "loads", not_reached)
            with pytest.raises(ValueError, match=match) as caught:
                self.read(content, suffix)
        assert "not_reached" not in str(caught.value), note

    def refused_or_harmless(self, content, suffix):
        with contextlib.suppress(ValueError):
            self.read(content, suffix)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    files = Honest(tmp_path_factory.mktemp("honest"))
    for suffix in SUFFIXES:  # also imports what reading needs
        files.read(files.with_config(files.config(suffix), suffix), suffix)
    return files


SUFFIXES = (".keras", ".h5", ".skstack")


# Nodes of a config that must not come through -----------------------------------------------------


def of_class(module, name, config=None, **more):
    return {"module": module, "class_name": name, "config": config or {}, **more}


def function(module, name):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def code():
    """A function that makes a file, as Keras stores its bytes."""
    touch = functools.partial(eval, f"lambda x: (open({MARK!r}, 'w').close(), x)[1]")()
    text = base64.b64encode(marshal.dumps(touch.__code__)).decode()
    return {"code": text, "defaults": None, "closure": None}


TFSM = {"filepath": os.path.dirname(MARK), "call_endpoint": "serve", "name": "saved"}
WORDS = ["a" * 20_000, *map(str, range(20_000))]
NODES = {
    "functions of Keras": [
        of_class("keras.visualization", "plot_image_gallery"),
        of_class("keras.config", "set_floatx"),
        of_class("keras.datasets.mnist", "load_data"),
        of_class("keras.utils", "get_file", registered_name=None),
        of_class("keras.src.utils.file_utils", "get_file"),
        of_class("keras.src.saving.saving_lib", "load_model"),
        of_class("keras.applications", "ResNet50", {"weights": "imagenet"}),
        function("keras.applications", "ResNet50"),
        function("keras.visualization", "plot_image_gallery"),
        function("keras.utils", "get_file"),
        function("keras.models", "load_model"),
        function("keras.losses", "deserialize"),
        function("keras.losses", "get"),
        function("keras.ops", "map"),
        function("keras.ops", "custom_gradient"),
        function("keras.saving", "deserialize_keras_object"),
    ],
    "unsafe mode": [
        function("keras.config", "enable_unsafe_deserialization"),
        of_class("keras.config", "enable_unsafe_deserialization"),
        of_class("keras.src.saving.serialization_lib", "enable_unsafe_deserialization"),
        of_class("keras.src.saving.serialization_lib", "SafeModeScope", {"safe_mode": False}),
    ],
    "names with dots": [
        of_class("keras", "visualization.plot_image_gallery"),
        of_class("keras", "config.set_floatx"),
        of_class("keras.layers.", "Dense", {"units": 1}),
        of_class("keras.layers", ".Dense", {"units": 1}),
        function("keras", "config.enable_unsafe_deserialization"),
    ],
    "any module": [
        of_class("os", "system"), of_class("subprocess", "Popen", registered_name="Popen"),
        of_class("builtins", "exec"), of_class("keras_hub.models", "Backbone"),
        function("builtins", "eval"), function("posix", "system"), function("os", "system"),
        of_class("keras.src.layers.convolutional.base_conv", "BaseConv", {"rank": 2**30}),
        of_class(None, "plot_image_gallery"), of_class("keras.layers", "dense"),
        of_class("Keras.Layers", "Dense"), of_class("keras.layers", "Ｄense"),  # noqa: RUF001
        {"class_name": "plot_image_gallery", "config": {}},
        {"class_name": "deserialize", "config": {"config": TFSM}},
        {"class_name": "Dense", "config": {"units": 1, "activation": "deserialize"}},
    ],
    "stray registered names": [
        of_class("keras.layers", "Dense", {"units": 1}, registered_name="evil>Evil"),
        of_class("tests", "Scaled", registered_name="tests>scaled"),
        of_class("keras.config", "set_floatx", registered_name="set_floatx"),
        of_class("keras.layers", "Dense", {"units": 1}, registered_name=["Dense"]),
        of_class("tests", "halved", registered_name="tests>halved"),
        function("tests", "tests>Scaled"),
    ],
    "layers that bring code along": [
        of_class("keras.layers", "TFSMLayer", TFSM), function("keras.layers", "TFSMLayer"),
        of_class("keras.src.export.tfsm_layer", "TFSMLayer", TFSM),
        {"class_name": "TFSMLayer", "config": TFSM},
        of_class("keras.layers", "TorchModuleWrapper", {"module": "AAAA"}),
        {"class_name": "TorchModuleWrapper", "config": {"module": "AAAA"}},
        of_class("keras.layers", "JaxLayer"), of_class("keras.layers", "FlaxLayer"),
    ],
    "lambdas": [
        {"class_name": "__lambda__", "config": {"value": code()["code"]}},
        of_class(
            "keras.layers", "Lambda", {"function": {"class_name": "__lambda__", "config": code()}}
        ),
        of_class("keras.layers", "Lambda", {"function": [code()["code"], None, None]}),
        {"class_name": "Lambda", "config": {"function": [code()["code"], None, None],
                                            "function_type": "lambda"}},
        of_class("keras.layers", "Lambda", {"function": function("keras.utils", "get_file")}),
        of_class("keras.layers", "Lambda", {
            "function": function("builtins", "relu"),
            "output_shape": {"class_name": "__lambda__", "config": code()},
        }),
    ],
    "vocabularies elsewhere": [
        of_class("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
        of_class("keras.layers", "IntegerLookup", {"vocabulary": "gs://bucket/words"}),
        of_class("keras.layers", "TextVectorization", {"vocabulary": "http://host/words"}),
        {"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
    ],
    "control flow": [
        of_class("keras.src.ops.core", name, {"name": "a"}, registered_name=name)
        for name in ("Switch", "Cond", "Map", "Scan", "AssociativeScan", "VectorizedMap",
                     "WhileLoop", "ForiLoop")
    ] + [of_class("keras.src.ops.linalg", "JVP"), of_class("keras", "Function")],
    "types of TensorFlow": [
        {"class_name": "__typespec__", "spec_name": "TensorSpec", "config": [],
         "module": "tensorflow", "registered_name": "TensorSpec"},
        {"class_name": "TypeSpec", "type_spec": "tf.TensorSpec", "serialized": []},
        {"class_name": "CompositeTensor", "spec": {}, "tensors": []},
    ],
    "malformed nodes": [
        of_class("keras.layers", 7), of_class("keras.layers", ["Dense"]),
        of_class("keras.layers", None), of_class(["keras.layers"], "Dense"),
        {"module": "keras.layers", "class_name": "Dense", "config": "Dense"},
        {"module": "keras.layers", "class_name": "Dense", "config": [7]},
        {"module": "keras.activations", "class_name": "function", "config": None},
        {"module": "keras.activations", "class_name": "function", "config": {"a": 1}},
        {"class_name": "__numpy__", "config": {"value": [1], "dtype": "object"}},
        {"class_name": "__tensor__", "config": [1]},
    ],
    "numbers that make much": [
        {"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "S2000000000"}},
        {"class_name": "__numpy__", "config": {"value": WORDS, "dtype": "string"}},
        of_class("keras.layers", "StringLookup", {"vocabulary": WORDS}),
        of_class("keras.layers", "StringLookup", {"vocabulary": ["a"], "num_oov_indices": 2**29}),
        of_class("keras.layers", "TextVectorization", {"ngrams": 2**29}),
        of_class("keras.metrics", "AUC", {"num_thresholds": 2**29}),
        of_class("keras.metrics", "MeanIoU", {"num_classes": 2**29}),
        of_class("keras.layers", "Normalization", {"mean": 0.0, "variance": 1.0}),
        of_class("keras.src.ops.numpy", "Split", {"indices_or_sections": 2**28}),
        of_class("keras.src.ops.core", "Unstack", {"axis": 1}),
        of_class("keras.layers", "Lambda", {
            "function": function("keras.ops", "diff"), "arguments": {"n": 2**40},
        }),
    ],
}  # fmt: skip


def slots(part, found=None):
    """All places of a config: container and key."""
    found = [] if found is None else found
    keys = part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
    for key in keys:
        found.append((part, key))
        slots(part[key], found)
    return found


def first(part, kind):
    """The first node of a class, in a config."""
    if isinstance(part, dict) and part.get("class_name") == kind:
        return part
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return next((node for node in (first(each, kind) for each in parts) if node), None)


@pytest.mark.parametrize("kind", NODES)
def test_harmful_nodes_are_refused_at_any_position(honest, kind):
    for number, node in enumerate(NODES[kind]):
        for turn, suffix in enumerate(SUFFIXES):
            place = (number + turn) % 4
            config = honest.config(suffix)
            dense = first(config, "Dense")
            if place == 0:
                dense["config"]["activation"] = node
            elif place == 1:
                kept = {key: dense[key] for key in ("name", "inbound_nodes")}
                dense.clear()
                dense.update({**kept, **node})
            elif place == 2:
                own = first(config, "tests>Scaled" if suffix == ".h5" else "Scaled")
                own["config"]["inner"] = [{"a": node}]
            elif suffix == ".h5":
                dense["config"]["kernel_initializer"] = node
            else:
                config["compile_config"]["loss"] = node
            note = f"{node} in {suffix}, place {place}"
            honest.refused(honest.with_config(config, suffix), suffix, note=note)


def in_operation(honest, name, arguments, **config):
    """The honest file, whose last sum is another operation."""
    network = honest.config(".keras")
    (node,) = [each for each in network["config"]["layers"] if each["class_name"] == "Add"]
    tensor = node["inbound_nodes"][0]["args"][0]
    node.update(class_name=name, registered_name=name)
    if name in ("Switch", "Map", "Cond"):
        node["module"] = "keras.src.ops.core"
    node["config"].update(config)
    args = [tensor if each is ... else each for each in arguments]
    node["inbound_nodes"] = [{"args": args, "kwargs": {}}]
    return network


@pytest.mark.parametrize("suffix", [".keras", ".skstack"])
def test_a_graph_that_calls_a_function_when_it_is_built_is_refused(honest, suffix):
    pixels = {"class_name": "__numpy__", "config": {"value": [[[[0, 0, 0]]]], "dtype": "uint8"}}
    gallery = of_class("keras.visualization", "plot_image_gallery", registered_name=None)
    floats = of_class("keras.config", "set_floatx", registered_name=None)
    for config in (
        in_operation(
            honest, "Switch", [..., [gallery], pixels, *[None] * 3, 1, 1, [0, 255], 2, MARK]
        ),
        in_operation(honest, "Switch", [..., [floats], "float16"]),
    ):
        honest.refused(
            honest.with_config(config, suffix), suffix, "among the allowed layers, operations"
        )


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Add", [[1.0], [1.0]], "without a tensor"),
        ("Add", [], "without a tensor"),
        ("Add", [{"class_name": "__numpy__", "config": {"value": [1.0]}}, 1.0], "without a tensor"),
        ("Add", [..., of_class("keras.layers", "Dense", {"units": 1})], "passes a .* to a layer"),
        ("Add", [..., function("builtins", "relu")], "passes the function .* to a layer"),
        ("Add", [..., {"a": of_class("keras.initializers", "Zeros")}], "passes a .* to a layer"),
    ],
)
def test_layers_are_called_with_tensors_of_the_graph_and_values(honest, name, arguments, message):
    config = in_operation(honest, name, arguments)
    honest.refused(honest.with_config(config, ".keras"), ".keras", message)


def test_a_graph_that_takes_too_long_to_build_is_refused(honest):
    inputs = keras.Input((2,))
    inner = keras.Model(inputs, layers.Dense(2)(inputs), name="inner")
    template = json.loads(keras.Model(inputs, inner(inner(inputs))).to_json())

    def nested(depth):
        config = copy.deepcopy(template)
        if depth:
            (node,) = [each for each in config["config"]["layers"] if each["name"] == "inner"]
            node["config"] = nested(depth - 1)["config"]
        return config

    honest.refused(honest.with_config(nested(20), ".keras"), ".keras", "calls to build")


def test_a_network_with_too_many_layers_is_refused(honest):
    layer = of_class("keras.layers", "Identity")
    long = of_class("keras", "Sequential", {"name": "a", "layers": [layer] * 400})
    honest.refused(honest.with_config(long, ".keras"), ".keras", "too many layers")
    several = [of_class("keras", "Sequential", {"layers": [layer] * 10})] * 600
    wide = of_class("keras", "Model", {"name": "a", "layers": several})
    honest.refused(honest.with_config(wide, ".keras"), ".keras", "more than 5000 layers")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_not_models_are_refused(honest, suffix):
    for node in (
        of_class("keras.losses", "Huber"),
        of_class("keras.layers", "Dense", {"units": 1}),
        function("builtins", "relu"),
    ):
        honest.refused(honest.with_config(node, suffix), suffix, before_keras=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: KerasClassifier(path, **QUICK),
        lambda path: KerasRegressor(path, **QUICK),
        lambda path: KerasAutoencoder(path, **QUICK),
        lambda path: KerasFeatureTransformer(path),
        lambda path: KerasFeatureTransformer(make_pipeline(StandardScaler(), path)),
        lambda path: StackedKerasClassifier([("a", path)], cv=2),
        lambda path: StackedKerasClassifier(
            [("a", LogisticRegression())], downstream=KerasClassifier(path), cv=2
        ),
        lambda path: KerasClassifier(MLP((2,)), loss=TeacherLoss(path), **QUICK),
    ],
)
def test_every_estimator_that_takes_a_path_refuses(honest, tmp_path, make):
    config = in_operation(
        honest, "Switch", [..., [of_class("keras.config", "set_floatx")], "float16"]
    )
    path = tmp_path / "hostile.keras"
    path.write_bytes(honest.with_config(config, ".keras"))
    with pytest.raises(ValueError, match=r"hostile.keras' was refused: .*Switch"):
        make(str(path)).fit(X, Y)
    assert keras.config.floatx() == "float32"


# Texts and containers -----------------------------------------------------------------------------

TEXTS = {
    "no JSON": "{", "nothing": "", "no object": "[]", "a number": "7", "NaN": "NaN",
    "deep lists": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep nodes": '{"class_name": "Wrapper", "config": {"layer": ' * 2_000 + "1" + "}}" * 2_000,
    "a huge number": '{"class_name": "Dense", "config": {"units": ' + "9" * 10_000 + "}}",
    "two names": '{"class_name": "Dense", "module": "keras.layers", "config": {}, '
                 '"class_name": "TFSMLayer"}',
    "escaped names": '{"class_name": "\\\\u0054FSMLayer", "module": "keras.layers", "config": {}}',
    "bytes": b"\xff\xfe\x00",
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_invalid_configs_are_refused(honest, text):
    for suffix in SUFFIXES:
        if not (suffix == ".h5" and isinstance(text, bytes)):
            honest.refused(honest.with_config(text, suffix), suffix)


def with_flags(content, **flags):
    """The archive with other entries in its directory."""
    changed = bytearray(content)
    for entry in (i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"):
        for name, value in flags.items():
            offset, form = {"flag": (8, "<H"), "method": (10, "<H"), "size": (24, "<I"),
                            "attributes": (38, "<I"), "offset": (42, "<I")}[name]  # fmt: skip
            struct.pack_into(form, changed, entry + offset, value)
    return bytes(changed)


@functools.cache
def archives(files):
    """Harmful zip files by name: content and message."""
    text = files.keras["config.json"]
    much = {"config.json": text + b" " * 10**8}
    asset = {"assets/a.txt": b" " * 10**8}
    deflated = {"compression": zipfile.ZIP_DEFLATED}
    members = {"metadata.json": b"{}", "config.json": text}
    return {
        "a config that grows": (
            files.with_members(much, ".keras", **deflated),
            "which is too much",
        ),
        "assets that grow": (files.with_members(asset, ".keras", **deflated), "which is too much"),
        "bzip2": (
            files.with_members({}, ".keras", compression=zipfile.ZIP_BZIP2),
            "compression that is",
        ),
        "lzma": (
            files.with_members({}, ".keras", compression=zipfile.ZIP_LZMA),
            "compression that is",
        ),
        "a lying size": (with_flags(zipped(files.keras), size=2**31), "which is too much"),
        "encryption": (with_flags(zipped(files.keras), flag=1), "encrypted"),
        "one place": (with_flags(zipped(files.keras), offset=0), "."),
        "links": (with_flags(zipped(files.keras), attributes=0o120777 << 16), "link"),
        "a folder above": (files.with_members({"../a": b"a"}, ".keras"), "points outside"),
        "a folder inside above": (
            files.with_members({"assets/../../a": b""}, ".keras"),
            "points outside",
        ),
        "a root": (files.with_members({"/tmp/a": b"a"}, ".keras"), "points outside"),
        "a drive": (files.with_members({"C:/a": b"a"}, ".keras"), "points outside"),
        "backslashes": (files.with_members({"assets\\..\\a": b"a"}, ".keras"), "points outside"),
        "npz": (zipped({**members, "model.weights.npz": b"PK"}), "no model.weights.h5"),
        "no config": (zipped({"model.weights.h5": files.keras["model.weights.h5"]}), "config.json"),
        "a long word": (
            files.with_members({"assets/_layer/vocabulary.txt": "\n".join(WORDS)}, ".keras"),
            "longer than the others",
        ),
        "no zip": (b"PK\x03\x04" + bytes(100), "no Keras model"),
        "nothing": (b"", "no Keras model"),
    }


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_harmful_archives_are_refused(honest):
    hostile = archives(honest)
    with within(80):
        for content, match in hostile.values():
            honest.refused(content, ".keras", match)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, member in [*honest.keras.items(), ("config.json", b"{}")]:
            archive.writestr(name, member)
    honest.refused(buffer.getvalue(), ".keras", "two members with one name")


def some_data_set(file):
    found = []
    file.visititems(lambda name, thing: found.append(name) if hasattr(thing, "shape") else None)
    return next(name for name in found if file[name].ndim == 2)


def replaced(**settings):
    """A data set that is made anew, with these settings."""

    def change(file):
        name = some_data_set(file)
        settings.setdefault("shape", file[name].shape)
        settings.setdefault("dtype", file[name].dtype)
        del file[name]
        file.create_dataset(name, **settings)

    return change


def linked(link):
    def change(file):
        name = some_data_set(file)
        del file[name]
        file[name] = link

    return change


def virtual(file):
    name = some_data_set(file)
    layout = h5py.VirtualLayout(file[name].shape, file[name].dtype)
    layout[:] = h5py.VirtualSource("/etc/passwd", "a", file[name].shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def twice(file):
    file["again"] = file[some_data_set(file)]


def circle(file):
    file.create_group("a")["b"] = file["/"]


def references(file):
    name = some_data_set(file)
    del file[name]
    file.create_dataset(name, data=np.array([file.ref], dtype=h5py.ref_dtype))


def of_references(file):
    file.attrs["a"] = file.ref


def named_type(file):
    file["a"] = np.dtype("float32")


HDF5 = {
    "a fill value": replaced(shape=(2**15, 2**14), chunks=(64, 64), fillvalue=7),
    "zeros, compressed": replaced(data=np.zeros((2**12, 2**12), "f4"), shape=None, dtype=None,
                                  compression="gzip"),
    "nothing written": replaced(shape=(2**16, 2**16)),
    "many dimensions": replaced(shape=(2**8,) * 6, chunks=(1,) * 6),
    "a large chunk": replaced(shape=(2, 2), chunks=(2**14, 2**13), maxshape=(None, None),
                              compression="gzip"),
    "scale and offset": replaced(data=np.ones((2, 2), "i4"), scaleoffset=2, shape=None, dtype=None),
    "another file's bytes": replaced(shape=(4, 4), dtype="f4", external=[("/etc/passwd", 0, 64)]),
    "other files' data sets": virtual,
    "a link to a file": linked(h5py.ExternalLink("/etc/passwd", "/a")),
    "a link": linked(h5py.SoftLink("/a")),
    "one data set twice": twice,
    "a circle": circle,
    "references": references,
    "an attribute of references": of_references,
    "words": replaced(data=np.array([b"a"], object), dtype=h5py.string_dtype(), shape=None),
    "large words": replaced(shape=(2,), dtype="S100000000"),
    "records": replaced(shape=(2,), dtype=np.dtype([("a", "f4")])),
    "a type": named_type,
}  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_harmful_hdf5_files_are_refused(honest, suffix):
    with within(80):
        for name, change in HDF5.items():
            honest.refused(honest.with_hdf5(change, suffix), suffix, "HDF5", note=name)


@pytest.mark.parametrize("names", [[b"a"] * 1000, [b"a/w", b"a/./w"], [b"a//w"], [b"../w"]])
def test_a_weight_of_an_h5_file_is_named_once(honest, names):
    def change(file):
        file["model_weights/encoder"].attrs["weight_names"] = names

    honest.refused(honest.with_hdf5(change, ".h5"), ".h5", "names one weight twice")


# Networks that are much larger than their file ----------------------------------------------------


def wide(layer, shape=(4,), dtype=None):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, layer(inputs))


SMALL = {
    "Dense": (wide, layers.Dense, {"units": 2}, {"units": 2**26}),
    "Embedding": (
        functools.partial(wide, dtype="int32"), layers.Embedding,
        {"input_dim": 3, "output_dim": 2}, {"input_dim": 2**26},
    ),
    "EinsumDense": (
        wide, layers.EinsumDense, {"equation": "ab,bc->ac", "output_shape": 2},
        {"output_shape": [2**26]},
    ),
    "LSTM": (
        functools.partial(wide, shape=(3, 2)), layers.LSTM, {"units": 2}, {"units": 2**13}
    ),
    "Conv1D": (
        functools.partial(wide, shape=(3, 2)), layers.Conv1D,
        {"filters": 2, "kernel_size": 2, "padding": "same"},
        {"filters": 2**12, "kernel_size": [2**12]},
    ),
    "MultiHeadAttention": (
        lambda layer: wide(lambda x: layer(x, x), shape=(3, 2)), layers.MultiHeadAttention,
        {"num_heads": 2, "key_dim": 2}, {"num_heads": 2**12, "key_dim": 2**13},
    ),
    "BatchNormalization": (wide, layers.BatchNormalization, {}, 2**28),
    "Normalization": (wide, layers.Normalization, {"mean": 0.0, "variance": 1.0}, 2**28),
    "TimeDistributed": (
        lambda layer: wide(lambda x: layers.TimeDistributed(layer)(x), shape=(3, 2)),
        layers.Dense, {"units": 2}, {"units": 2**27},
    ),
    "stateful": (
        lambda layer: keras.Model(a := keras.Input(batch_shape=(2, 3, 2)), layer(a)),
        layers.LSTM, {"units": 2, "stateful": True}, 2**28,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_a_network_takes_a_small_multiple_of_its_file(tmp_path, name):
    build, layer, small, large = SMALL[name]
    path = str(tmp_path / "a.keras")
    build(layer(**small)).save(path)
    assert load_model(path).built
    members = members_of((tmp_path / "a.keras").read_bytes())
    config = json.loads(members["config.json"])
    node = first(config, layer.__name__)
    if isinstance(large, dict):
        node["config"].update(large)
    else:  # a wide input
        config = json.loads(json.dumps(config).replace("[null, 4]", f"[null, {large}]"))
        config = json.loads(json.dumps(config).replace("[2, 3, 2]", f"[{large}, 3, 2]"))
    (tmp_path / "a.keras").write_bytes(zipped({**members, "config.json": json.dumps(config)}))
    with within(100), pytest.raises(ValueError, match=r"much larger weights|too many|a batch of"):
        load_model(path)


def test_numbers_of_an_optimizer_or_metric_take_no_memory(tmp_path):
    path = tmp_path / "a.skstack"
    skstack.save(KerasClassifier(MLP(), metrics=[keras.metrics.AUC()]), path)
    members = members_of(path.read_bytes())
    state = json.loads(members["state.json"])
    first(state, "AUC")["config"].update({"thresholds": None, "num_thresholds": 2**28})
    path.write_bytes(sealed({**members, "state.json": json.dumps(state)}))
    with within(80), pytest.raises(ValueError, match="num_thresholds"):
        skstack.load(path)


# Parts of scikit-learn ----------------------------------------------------------------------------


def nodes_of(part, loader):
    """All nodes of a loader, in a schema of skops."""
    if isinstance(part, dict) and part.get("__loader__") == loader:
        yield part
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from nodes_of(each, loader)


def an_object(schema, name):
    return next(each for each in nodes_of(schema, "ObjectNode") if each["__class__"] == name)


def with_matrix(change, *, compressed=False):
    """Another sparse matrix in the place of the rows that neighbours are looked for in."""

    def changed(schema, members):
        name = next(name for name in members if name.endswith(".npz"))
        matrix = sparse.load_npz(io.BytesIO(members[name])).tocsr()
        change(matrix)
        buffer = io.BytesIO()
        sparse.save_npz(buffer, matrix, compressed=compressed)
        return {name: buffer.getvalue()}

    return changed


def with_arrays(form, **changed):
    """A sparse matrix whose arrays are given one by one, as no constructor would take them."""

    def change(schema, members):
        name = next(name for name in members if name.endswith(".npz"))
        buffer = io.BytesIO()
        arrays = {"format": np.array(form.encode()), "shape": np.array([40, 4]),
                  "data": np.ones(2), **changed}  # fmt: skip
        np.savez(buffer, **arrays)
        return {name: buffer.getvalue()}

    return change


def put(matrix, attribute, place, value):
    getattr(matrix, attribute)[place] = value


def with_array(content):
    def change(schema, members):
        name = next(name for name in members if name.endswith(".npy"))
        return {name: content(members[name]) if callable(content) else content}

    return change


def npy(header, data=b""):
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


class Touch:
    def __reduce__(self):
        return (open, (MARK, "w"))


def pickled(**kwargs):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Touch()], object), allow_pickle=True)
    return buffer.getvalue()


def json_node(value):
    return {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode",
            "content": json.dumps(value), "is_json": True}  # fmt: skip


def shadow(name, value=None):
    def change(schema, members):
        content = an_object(schema, "KNeighborsClassifier")["content"]["content"]
        content[name] = value or json_node(1)

    return change


def as_loader(loader, **more):
    """The sparse rows, made in another way."""

    def change(schema, members):
        node = next(nodes_of(schema, "SparseMatrixNode"))
        node.update({"__loader__": loader, "content": json_node([2**33, 1]), **more})

    return change


def doubled(schema, members):
    """Each list holds the one before it twice."""
    node = json_node(1)
    for number in range(1, 60):
        again = {"__id__": -number, "__loader__": "ListNode"}
        node = {
            "__class__": "list",
            "__module__": "builtins",
            "__loader__": "ListNode",
            "__id__": -number,
            "content": [node, {"__id__": 1 - number} if number > 1 else node],
        }
        node["content"][1] = {**again, "__id__": 1 - number} if number > 1 else node["content"][0]
    an_object(schema, "KNeighborsClassifier")["content"]["content"]["p"] = node


def operator_node(schema, members):
    an_object(schema, "KNeighborsClassifier")["content"]["content"]["metric"] = {
        "__class__": "methodcaller", "__module__": "operator", "__loader__": "OperatorFuncNode",
        "attrs": json_node(["predict"]),
    }  # fmt: skip


def method_node(schema, members):
    state = an_object(schema, "KNeighborsClassifier")["content"]["content"]
    owner = an_object(schema, "TfidfTransformer")
    state["metric"] = {
        "__class__": "TfidfTransformer", "__module__": owner["__module__"],
        "__loader__": "MethodNode", "content": {"func": "fit_transform", "obj": owner},
    }  # fmt: skip


INDICES = "indices|column index"  # of ours, or of an older SciPy
PARTS = {
    "an index beyond": (with_matrix(lambda m: put(m, "indices", 3, 2**30)), INDICES),
    "an index below": (with_matrix(lambda m: put(m, "indices", 3, -5)), INDICES),
    "rows beyond": (with_matrix(lambda m: put(m, "indptr", 3, 2**30)), "ind"),
    "rows that go back": (with_matrix(lambda m: put(m, "indptr", 3, 80)), "indptr|index pointer"),
    "coordinates beyond": (
        with_arrays("coo", row=np.array([0, 99]), col=np.array([0, 1])), "exceeds"
    ),
    "blocks beyond": (
        with_arrays("bsr", data=np.ones((1, 2, 2)), indices=np.array([2**20]),
                    indptr=np.array([0] + [1] * 20)), "index values"
    ),
    "diagonals beyond": (
        with_arrays("dia", data=np.ones((1, 4)), offsets=np.array([2**31 - 1])), "diagonals"
    ),
    "another format": (with_arrays("lil"), ""),
    "pickles in a matrix": (
        with_arrays("csr", data=np.array([Touch()]), indices=np.zeros(1, int),
                    indptr=np.zeros(41, int)), "pickled objects"
    ),
    "a compressed bomb": (
        lambda schema, members: {
            name: zipped({"data.npy": bytes(10**8)}, zipfile.ZIP_DEFLATED)
            for name in members if name.endswith(".npz")
        }, "which is too much",
    ),
    "a lying array": (
        with_array(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1073741824,)}")), "size"
    ),
    "a large value": (
        with_array(npy("{'descr': '|S2000000000', 'fortran_order': False, 'shape': (0,)}")),
        "larger than the array",
    ),
    "nothing, often": (
        with_array(npy("{'descr': '|V0', 'fortran_order': False, 'shape': (1073741824,)}")),
        "more values than bytes",
    ),
    "an archive for an array": (with_array(zipped({"a.npy": b"a"})), "magic string"),
    "pickles": (with_array(pickled()), "pickled objects"),
    "pickles alone": (with_array(b"cposix\nsystem\n(S'true'\ntR."), "magic string"),
    "a method": (shadow("predict"), "would shadow"),
    "a private method": (shadow("_validate_params"), "would shadow"),
    "a property": (shadow("_repr_html_"), "would shadow"),
    "the class": (shadow("__class__"), "would shadow"),
    "a matrix from a constructor": (as_loader("ConstructorFromReduceNode"), " for scipy"),
    "a matrix from its state": (as_loader("ObjectNode"), " for scipy"),
    "a matrix from a partial": (as_loader("PartialNode"), " for scipy"),
    "lists of lists of lists": (doubled, "too long"),
    "an operator": (operator_node, "methodcaller.*untrusted code"),
    "a bound method": (method_node, "fit_transform.*untrusted code"),
    "no loader": (as_loader("EvilNode"), ""),
    "an older protocol": (lambda schema, members: schema.update(protocol=0) or
                          as_loader("FunctionNode")(schema, members), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_harmful_parts_of_scikit_learn_are_refused(honest, name):
    change, match = PARTS[name]
    content = honest.with_part(change)
    early = name not in ("an operator", "a bound method", "no loader", "an older protocol")
    with within(80):
        honest.refused(content, ".skstack", match or None, before_keras=early)


CRASHING = {
    "support vectors": (SVC, "support_vectors_", lambda values: values[:0]),
    "coefficients": (SVC, "_dual_coef_", lambda values: values[:, :1]),
    "counts": (NuSVR, "_n_support", lambda values: values[:1]),
    "large counts": (OneClassSVM, "_n_support", lambda values: values + 10**6),
    "intercepts": (SVC, "_intercept_", lambda values: values[:0]),
    "no neighbours": (LocalOutlierFactor, "_fit_X", lambda values: values[:0]),
    "fewer neighbours": (LocalOutlierFactor, "_fit_X", lambda values: values[:3]),
}


@pytest.mark.parametrize("name", CRASHING)
def test_estimators_that_would_crash_the_process_are_refused(honest, tmp_path, name):
    cls, attribute, change = CRASHING[name]
    part = cls(algorithm="brute", novelty=True) if cls is LocalOutlierFactor else cls()
    part.fit(X, Y)
    path = tmp_path / "a.skstack"
    skstack.save(make_pipeline("passthrough", part), path)
    assert skstack.load(path).predict(X).shape == Y.shape
    setattr(part, attribute, np.ascontiguousarray(change(getattr(part, attribute))))
    members = members_of(path.read_bytes())
    (name,) = [name for name, member in members.items() if cls.__name__.encode() in member
               and name.endswith(".skops")]  # fmt: skip
    content = sealed({**members, name: skops.io.dumps(part)})
    honest.refused(content, ".skstack", "fit together|lost rows", before_keras=False)


def test_a_part_that_is_a_pickle_is_refused(honest):
    buffer = io.BytesIO()
    joblib.dump(Touch(), buffer)
    name = next(name for name, each in honest.skstack.items() if each == honest.part)
    content = sealed({**honest.skstack, name: buffer.getvalue()})
    honest.refused(content, ".skstack", "not a zip file")


@pytest.mark.parametrize("name", ["predict", "_sklearn_tags", "get_params", "__class__"])
def test_attributes_that_would_shadow_methods_are_refused(honest, name):
    state = json.loads(honest.skstack["state.json"])
    state["state"].append([name if name != "_sklearn_tags" else "__sklearn_tags__", 1])
    content = sealed({**honest.skstack, "state.json": json.dumps(state)})
    honest.refused(content, ".skstack", "would shadow")


def test_memory_folders_are_neither_stored_nor_restored(tmp_path):
    folder = str(tmp_path / "pickles")
    memory = joblib.Memory(folder, verbose=0)
    inner = make_pipeline(StandardScaler(), LogisticRegression(), memory=folder)
    parts = {
        "a pipeline": make_pipeline(StandardScaler(), LogisticRegression(), memory=memory),
        "in an estimator": SelfTrainingClassifier(inner),
        "in a pipeline": make_imblearn_pipeline(
            StandardScaler(), SelfTrainingClassifier(inner), memory=folder
        ),
        "in a search": GridSearchCV(SelfTrainingClassifier(inner), {"threshold": [0.6]}, cv=2),
        "in a table": make_pipeline(
            ColumnTransformer([("a", make_pipeline(StandardScaler(), memory=folder), [0])]),
            LogisticRegression(),
        ),
        "twice": make_pipeline(
            FeatureAgglomeration(2, memory=folder, pooling_func=np.max), LogisticRegression()
        ),
    }
    for name, part in parts.items():
        path = tmp_path / "a.skstack"
        fitted = part.fit(X, Y)
        skstack.save(fitted, path)
        members = path.read_bytes()
        assert folder.encode() not in members, name
        loaded = skstack.load(path, trusted=["numpy.max"])
        memories = {k: v for k, v in loaded.get_params().items() if k.endswith("memory")}
        assert memories, name
        assert set(memories.values()) == {None}, name
        np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
        given = {k: v for k, v in fitted.get_params().items() if k.endswith("memory")}
        assert set(given.values()) & {folder, memory}, name


def test_memory_folders_in_earlier_files_become_none(honest, tmp_path):
    def change(schema, members):
        state = an_object(schema, "Pipeline")["content"]["content"]
        state["memory"] = json_node(str(tmp_path))

    loaded = honest.read(honest.with_part(change), ".skstack")
    assert loaded.upstream[1][1].estimator.memory is None


@pytest.mark.parametrize("most", [100, 3_000, 20_000])
def test_a_full_temporary_disk_is_an_os_error(tmp_path, most):
    classifier = KerasClassifier(MLP((64, 64)), **QUICK).fit(X, Y)
    path = tmp_path / "a.skstack"
    path.write_bytes(b"before")
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            skstack.save(classifier, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.skstack"]


# Mutations ----------------------------------------------------------------------------------------


def any_slot(config, rng):
    return rng.choice(slots(config))


def mutated(node, rng):
    """A harmful node in another form."""
    node = copy.deepcopy(node)
    dress = rng.randrange(9)
    if dress == 0:
        return [node]
    if dress == 1:
        return {"a": node}
    if dress == 2:
        return of_class("keras.layers", "Bidirectional", {"layer": node})
    if dress == 3:
        return of_class("tests", "Scaled", {"inner": node}, registered_name="tests>Scaled")
    if dress == 4:
        node.pop("module", None)
    if dress == 5:
        node["registered_name"] = rng.choice([None, "Dense", "tests>Scaled", node["class_name"]])
    if dress == 6:
        node["shared_object_id"] = 1
    if dress == 7:
        node["module"] = rng.choice(["keras.layers", "keras", "keras.src.ops.core", "builtins"])
    return node


def hostile_node(kind):
    def make(files, rng):
        suffix = rng.choice(SUFFIXES)
        config = files.config(suffix)
        container, key = any_slot(config, rng)
        node = mutated(rng.choice(NODES[kind]), rng)
        if rng.random() < 0.5 and isinstance(container[key], dict) and isinstance(node, dict):
            container[key].update(node)
        else:
            container[key] = node
        return files.with_config(config, suffix), suffix

    return make


def hostile_numbers(files, rng):
    suffix = rng.choice(SUFFIXES)
    config = files.config(suffix)
    for _ in range(rng.randrange(1, 4)):
        numbers = [(c, k) for c, k in slots(config) if type(c[k]) in (int, float, type(None))]
        container, key = rng.choice(numbers)
        container[key] = rng.choice([2 ** rng.randrange(8, 70), -1, 0, float("nan"), 1e308])
    return files.with_config(config, suffix), suffix


def hostile_values(files, rng):
    suffix = rng.choice(SUFFIXES)
    config = files.config(suffix)
    for _ in range(rng.randrange(1, 6)):
        container, key = any_slot(config, rng)
        if rng.random() < 0.3 and isinstance(container, dict):
            del container[key]
        else:
            other, place = any_slot(config, rng)
            container[key] = copy.deepcopy(other[place])
    return files.with_config(config, suffix), suffix


def hostile_text(files, rng):
    suffix = rng.choice(SUFFIXES)
    text = json.dumps(files.config(suffix))
    for _ in range(rng.randrange(1, 10)):
        start = rng.randrange(len(text))
        end = start + rng.randrange(20)
        text = (
            text[:start]
            + rng.choice(['"', "}", "]", ",", "9" * 30, text[start:end] * 3])
            + (text[end:])
        )
    return files.with_config(text, suffix), suffix


def flipped(content, rng):
    content = bytearray(content)
    for _ in range(2 ** rng.randrange(7)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def hostile_bytes(files, rng):
    suffix = rng.choice(SUFFIXES)
    if suffix == ".h5":
        return flipped(files.h5, rng), suffix
    if suffix == ".keras":
        return flipped(zipped(files.keras), rng), suffix
    members = dict(files.skstack)
    name = rng.choice(sorted(members))
    members[name] = flipped(members[name], rng)
    return sealed(members), suffix


def hostile_archive(files, rng):
    content, _ = rng.choice(list(archives(files).values()))
    return (flipped(content, rng) if content and rng.random() < 0.5 else content), ".keras"


def hostile_hdf5(files, rng):
    suffix = rng.choice(SUFFIXES)
    content = files.with_hdf5(rng.choice(list(HDF5.values())), suffix)
    if suffix == ".h5" and rng.random() < 0.5:
        content = flipped(content, rng)
    return content, suffix


def hostile_part(files, rng):
    def change(schema, members):
        changed = None
        if rng.random() < 0.5:
            changed = PARTS[rng.choice(sorted(PARTS))][0](schema, members)
        for _ in range(rng.randrange(4)):
            container, key = any_slot(schema, rng)
            other, place = any_slot(schema, rng)
            container[key] = copy.deepcopy(other[place])
        return changed

    return files.with_part(change), ".skstack"


def hostile_state(files, rng):
    state = json.loads(files.skstack["state.json"])
    for _ in range(rng.randrange(1, 4)):
        container, key = any_slot(state, rng)
        other, place = any_slot(state, rng)
        container[key] = rng.choice([
            copy.deepcopy(other[place]), {"is": "function", "name": "os.system"}, 2**62,
            {"is": "object", "class": "os.system", "state": []}, {"is": "range", "items": [2**62]},
        ])  # fmt: skip
    return sealed({**files.skstack, "state.json": json.dumps(state)}), ".skstack"


ATTACKS = {kind: hostile_node(kind) for kind in NODES}
ATTACKS |= {
    "numbers": hostile_numbers, "values": hostile_values, "texts": hostile_text,
    "bytes": hostile_bytes, "archives": hostile_archive, "HDF5": hostile_hdf5,
    "parts": hostile_part, "states": hostile_state,
}  # fmt: skip


# Each node of the other kinds is refused in test_harmful_nodes_are_refused_at_any_position.
_SOME_NODES = {"stray registered names", "numbers that make much"}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind in NODES.keys() - _SOME_NODES else ())
        for kind in ATTACKS
    ],
)
@pytest.mark.filterwarnings("ignore")
@given_that(seed=st.integers(0, 2**32))
def test_mutated_files_are_refused_or_harmless(honest, kind, seed):
    content, suffix = ATTACKS[kind](honest, random.Random(seed))
    with within(200):
        honest.refused_or_harmless(content, suffix)
