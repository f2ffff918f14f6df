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
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

import skstack
from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack.losses import TeacherLoss
from skstack.networks import MLP, load_model

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


sys.addaudithook(_hook)


@contextlib.contextmanager
def watched(*folders):
    """Fail where something outside of these folders is opened, or a process or socket is made."""
    libraries = [
        os.path.realpath(path) for path in {sys.prefix, sys.base_prefix, *sys.path} if path
    ]
    _WATCHED.folders = (*map(os.path.realpath, map(str, folders)), *libraries, "/proc/")
    _WATCHED.seen = seen = []
    try:
        yield
    finally:
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
        self.constant = keras.Variable(np.ones(shape[-1], np.float32), trainable=False)

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
            with pytest.raises(ValueError, match=match) as told:
                self.read(content, suffix)
        assert "not_reached" not in str(told.value), note

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
def test_nodes_that_could_do_harm_are_refused_wherever_they_stand(honest, kind):
    for node in NODES[kind]:
        for suffix in SUFFIXES:
            for place in range(4):
                config = honest.config(suffix)
                dense = first(config, "Dense")
                if place == 0:
                    dense["config"]["activation"] = node
                elif place == 1:
                    kept = {key: dense[key] for key in ("name", "inbound_nodes")}
                    dense.clear()
                    dense.update({**kept, **node})
                elif place == 2:
                    first(config, "Scaled" if suffix != ".h5" else "tests>Scaled")["config"][
                        "inner"
                    ] = [{"a": node}]
                elif suffix == ".h5":
                    continue
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
def test_a_graph_that_calls_a_function_while_it_is_rebuilt_is_refused(honest, suffix):
    pixels = {"class_name": "__numpy__", "config": {"value": [[[[0, 0, 0]]]], "dtype": "uint8"}}
    gallery = of_class("keras.visualization", "plot_image_gallery", registered_name=None)
    floats = of_class("keras.config", "set_floatx", registered_name=None)
    for config in (
        in_operation(
            honest, "Switch", [..., [gallery], pixels, *[None] * 3, 1, 1, [0, 255], 2, MARK]
        ),
        in_operation(honest, "Switch", [..., [floats], "float16"]),
    ):
        honest.refused(honest.with_config(config, suffix), suffix, "none of the layers, operations")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Add", [[1.0], [1.0]], "without a tensor"),
        ("Add", [], "without a tensor"),
        ("Add", [{"class_name": "__numpy__", "config": {"value": [1.0]}}, 1.0], "without a tensor"),
        ("Add", [..., of_class("keras.layers", "Dense", {"units": 1})], "calls a layer with a"),
        ("Add", [..., function("builtins", "relu")], "calls a layer with the function"),
        ("Add", [..., {"a": of_class("keras.initializers", "Zeros")}], "calls a layer with a"),
    ],
)
def test_layers_are_called_with_tensors_of_the_graph_and_values(honest, name, arguments, message):
    config = in_operation(honest, name, arguments)
    honest.refused(honest.with_config(config, ".keras"), ".keras", message)


def test_a_graph_that_takes_for_ever_to_build_is_refused(honest):
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


@pytest.mark.parametrize(
    "make",
    [
        lambda path: KerasClassifier(path, **QUICK),
        lambda path: KerasRegressor(path, **QUICK),
        lambda path: KerasAutoencoder(path, **QUICK),
        lambda path: KerasFeatureTransformer(path),
        lambda path: KerasFeatureTransformer(make_pipeline(StandardScaler(), path)),
        lambda path: StackedKerasClassifier([("a", path)], cv=2),
        lambda path: StackedKerasClassifier(downstream=KerasClassifier(path), fine_tune=None, cv=2),
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
