"""Checks of the architecture of a saved model, before Keras reads it."""

from __future__ import annotations

import json
import math

from skstack._model_files.allowed import allowed_class, allowed_function, is_allowed_name

CODE = (
    "it holds a lambda, such as that of a Lambda layer, whose code would have to be run; replace "
    "it by a layer class, or by keras.ops"
)
# Class names that Keras stores for values, and the keys of their configs.
_VALUES = {
    "__bytes__": ("value",),
    "__ellipsis__": (),
    "__keras_tensor__": ("shape", "dtype", "keras_history"),
    "__numpy__": ("value", "dtype"),
    "__slice__": ("start", "stop", "step"),
    "__tensor__": ("value", "dtype"),
}
_OLD_VALUES = ("TensorShape", "__tuple__", "__ellipsis__")  # Keras 2
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
           "float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2",
           "complex64", "complex128", "string")  # fmt: skip
# Limits of arguments from which Keras makes lists or variables before it compares weights.
_LARGEST = {
    "chain_depth": 1_000,
    "indices_or_sections": 4_096,
    "max_bounding_boxes": 1_000_000,
    "ngrams": 100,
    "num_chains": 1_000,
    "num_classes": 10_000,
    "num_layers": 1_000,
    "num_ops": 1_000,
    "num_oov_indices": 100_000,
    "num_thresholds": 100_000,
    "rank": 100,
}
_ENCODE = ("MultiHot", "OneHot")  # allocate nothing before they are called
_SHAPES = ("batch_input_shape", "batch_shape", "build_input_shape", "input_shape", "shapes_dict")
_LARGEST_ARGUMENT = 4_096
_LARGEST_STATEFUL_BATCH = 4_096
_MOST_REPEATED = 2**20
_MOST_PARTS = 200_000
_MOST_LAYERS = 5_000  # each takes much more memory than its lines in the file
_MOST_CALLS = 50_000
_MOST_IN_SEQUENTIALS = 100_000  # squares of their lengths: adding a layer rebuilds all
# Keras 2 stored functions by name; Keras 3 would call these with data from the file.
_REFUSED_FUNCTIONS = ("deserialize", "get", "serialize")


def parse(text):
    """The config in a JSON text."""
    config = json.loads(text)
    if not isinstance(config, dict):
        raise ValueError("it holds no architecture")
    return config


def check_config(config):
    """Check a JSON config of Keras; return {name: "class" or "function"} of what is not Keras' own.

    Raises ValueError if it holds code, a class or function of Keras that is not allowed, a call
    without a tensor, or is malformed.
    """
    checker = _ConfigChecker()
    try:
        checker.check(config)
    except RecursionError as error:
        raise ValueError("its architecture is nested too deeply") from error
    if checker.stateful:
        checker.check_batches()
    return checker.names


def check_words(words):
    """Raise for a vocabulary that is much larger in NumPy, which pads words to the longest."""
    words = [word for word in words if isinstance(word, str)]
    letters = sum(map(len, words))
    if 4 * len(words) * max(map(len, words), default=0) > 64 * letters + 2**22:
        raise ValueError(
            "a vocabulary holds a word that is much longer than the others, and NumPy would pad "
            "all words to its length"
        )


class _ConfigChecker:
    """The state of one pass through a config."""

    def __init__(self):
        self.names = {}
        self.stateful = False
        self._n_parts = self._n_layers = self._n_in_sequentials = 0
        self._shapes = []

    def check(self, part, *, in_call=False):
        """Check a value; return the number of calls that building it takes."""
        if isinstance(part, list):
            return sum([self.check(each, in_call=in_call) for each in part])
        if not isinstance(part, dict):
            return 0
        if "class_name" not in part:
            return self._check_values(part, in_call=in_call)
        self._n_parts += 1
        if self._n_parts > _MOST_PARTS:
            raise ValueError(f"its architecture has more than {_MOST_PARTS} parts")
        kind = part["class_name"]
        if not isinstance(kind, str):
            raise ValueError(f"a part of its architecture has the class {_short(kind)}")
        if kind in _VALUES or kind in _OLD_VALUES:
            return self._check_value(kind, part, in_call=in_call)
        if kind == "__lambda__":
            raise ValueError(CODE)
        if kind == "function":
            self._check_function(part, in_call=in_call)
            return 0
        return self._check_class(kind, part, in_call=in_call)

    def _check_values(self, part, *, in_call):
        calls = 0
        for key, value in part.items():
            if key in _SHAPES:
                self._shapes.append(value)
            calls += self.check(value, in_call=in_call)
        return calls

    def _check_value(self, kind, part, *, in_call):
        if kind in _OLD_VALUES and "config" not in part:
            return self.check(part.get("items"), in_call=in_call)
        inner = part.get("config") or {}
        if not isinstance(inner, dict) or not set(inner) <= set(_VALUES.get(kind, ())):
            raise ValueError(f"a {kind} of its architecture is malformed")
        if "dtype" in inner and inner["dtype"] not in (None, *_DTYPES):
            raise ValueError(f"a {kind} of its architecture has the dtype {_short(inner['dtype'])}")
        if kind in ("__numpy__", "__tensor__"):
            check_words(_flat(inner.get("value")))
        return self.check(list(inner.values()), in_call=in_call)

    def _check_function(self, part, *, in_call):
        name, module = part.get("config"), part.get("module")
        if not isinstance(name, str):
            raise ValueError(f"a function of its architecture has the name {_short(name)}")
        if module is not None and not isinstance(module, str):
            raise ValueError(f"a function of its architecture has the module {_short(module)}")
        own = part.get("registered_name") in (None, "function", name)
        if own and module is not None and allowed_function(module, name) is not None:
            if in_call:
                raise ValueError(f"it passes the function {module}.{name} to a layer")
            return
        if _is_keras_module(module):
            raise ValueError(_not_allowed(module, name))
        self._add_name(name, "function")

    def _add_name(self, name, kind):
        if self.names.setdefault(name, kind) != kind:
            raise ValueError(f"{_short(name)} names both a class and a function")

    def _check_class(self, kind, part, *, in_call):
        inner, module = part.get("config"), part.get("module")
        registered = part.get("registered_name")
        for value, what in ((module, "module"), (registered, "registered name")):
            if value is not None and not isinstance(value, str):
                raise ValueError(f"a {_short(kind)} of its architecture has the {what} {value!r}")
        if kind == "Lambda":
            _check_lambda(inner)
        if registered not in (None, kind):
            own = False
        elif "module" not in part:
            own = is_allowed_name(kind)
        else:
            own = allowed_class(module or "", kind) is not None
            if not own and _is_keras_module(module):
                raise ValueError(_not_allowed(module, kind))
        self._count_layer(kind, part, own=own)
        if not own:
            self._add_name(registered or kind, "class")
        elif in_call:
            raise ValueError(f"it passes a {kind} to a layer")
        else:
            _check_arguments(kind, inner, is_old="module" not in part)
            if kind == "Normalization":
                _check_normalization(inner or {}, part.get("build_config"))
        if isinstance(inner, dict) and inner.get("stateful"):
            self.stateful = True
        return self._check_parts(part, in_call=in_call)

    def _count_layer(self, kind, part, *, own):
        import keras

        cls = allowed_class(part.get("module") or "keras.layers", kind) if own else None
        self._n_layers += not own or (cls is not None and issubclass(cls, keras.Operation))
        if self._n_layers > _MOST_LAYERS:
            raise ValueError(f"its architecture has more than {_MOST_LAYERS} layers")
        if kind == "Sequential":
            inner = part.get("config")
            inside = inner.get("layers") if isinstance(inner, dict) else inner
            self._n_in_sequentials += len(inside or ()) ** 2
        if self._n_in_sequentials > _MOST_IN_SEQUENTIALS:
            raise ValueError("a Sequential has too many layers: adding one rebuilds all others")

    def _check_parts(self, part, *, in_call):
        calls = 1
        for key, value in part.items():
            if key == "inbound_nodes":
                self._check_calls(value)
            elif key not in ("class_name", "module", "registered_name"):
                calls += self._check_values({key: value}, in_call=in_call)
        calls *= max(1, len(part.get("inbound_nodes") or ()))
        if calls > _MOST_CALLS:
            raise ValueError(f"its architecture takes more than {_MOST_CALLS} calls to build")
        return calls

    def _check_calls(self, nodes):
        """Check the calls of a layer from which the graph is rebuilt."""
        if not isinstance(nodes, list):
            raise ValueError("the calls of a layer are not a list")
        for node in nodes:
            symbolic = _holds_tensor(node) if isinstance(node, dict) else _is_old_call(node)
            if not symbolic:
                raise ValueError("it calls a layer without a tensor of its graph")
            self.check(node, in_call=True)

    def check_batches(self):
        """Raise for stateful layers with a very large batch."""
        for shape in self._shapes:
            if any(type(n) is int and n > _LARGEST_STATEFUL_BATCH for n in _first_sizes(shape)):
                raise ValueError(
                    f"a stateful layer has a batch of more than {_LARGEST_STATEFUL_BATCH} rows"
                )


def _is_keras_module(module):
    return isinstance(module, str) and module.partition(".")[0] == "keras"


def _not_allowed(module, name):
    return (
        f"its architecture names {_short(f'{module}.{name}')}, which is not among the "
        "allowed layers, operations, losses and other objects: it could run foreign code, or read "
        "and write files"
    )


def _check_lambda(inner):
    """Raise unless a Lambda layer names its function, which is then checked like any other."""
    function = inner.get("function") if isinstance(inner, dict) else None
    if not isinstance(function, dict) or function.get("class_name") != "function":
        raise ValueError(CODE)


def _module_and_name(function):
    return str(function.get("module")), str(function.get("config"))


def _check_lambda_arguments(arguments):
    """Raise for large numbers passed to an operation: they may be numbers of repetitions."""
    values = list(arguments.values()) if isinstance(arguments, dict) else [arguments]
    if any(type(value) is int and abs(value) > _LARGEST_ARGUMENT for value in _flat(values)):
        raise ValueError(f"a Lambda layer has arguments beyond {_LARGEST_ARGUMENT}")


def _check_arguments(kind, inner, *, is_old):
    """Raise for arguments of Keras' own classes that read files or allocate much memory."""
    if not isinstance(inner, dict):
        if inner is None or (is_old and isinstance(inner, list)):
            return
        raise ValueError(f"the config of a {kind} is malformed")
    vocabulary = inner.get("vocabulary")
    if isinstance(vocabulary, str):
        raise ValueError(
            f"a {kind} would read its vocabulary from {_short(vocabulary)}; it must be in "
            "the file itself"
        )
    if isinstance(vocabulary, list):
        check_words(_flat(vocabulary))
    if kind == "Lambda" and allowed_function(*_module_and_name(inner["function"])) is not None:
        _check_lambda_arguments(inner.get("arguments"))
    for name, most in _LARGEST.items():
        if name == "num_classes" and kind in _ENCODE:
            continue
        if isinstance(inner.get(name), (int, float)) and inner[name] > most:
            raise ValueError(f"a {kind} has {name}={inner[name]}, and at most {most} are allowed")
    if kind == "Unstack" and type(inner.get("num")) is not int:
        raise ValueError("an Unstack operation lacks its number of outputs (num)")
    if kind == "Unstack" and inner["num"] > _LARGEST["indices_or_sections"]:
        raise ValueError(f"an Unstack operation has {inner['num']} outputs")
    words = [value for key, value in inner.items() if key != "name" and isinstance(value, str)]
    if is_old and any(word in _REFUSED_FUNCTIONS for word in words):
        raise ValueError(f"a {kind} would call a function that reads configs")


def _check_normalization(inner, build_config):
    """Raise for a single mean or variance that loading repeats over too many columns."""
    if inner.get("mean") is None or inner.get("axis", -1) in (None, []):
        return
    if min(len(_flat(inner["mean"])), len(_flat(inner.get("variance")))) > 1:
        return
    shape = build_config.get("input_shape") if isinstance(build_config, dict) else None
    if not isinstance(shape, list) or math.prod(filter(None, _flat(shape))) > _MOST_REPEATED:
        raise ValueError("a Normalization repeats one mean or variance over too many columns")


def _holds_tensor(node):
    """Whether the arguments of a call hold a tensor of the graph."""
    if isinstance(node, dict):
        if "class_name" in node:
            return node["class_name"] == "__keras_tensor__"
        return any(map(_holds_tensor, node.values()))
    return isinstance(node, list) and any(map(_holds_tensor, node))


def _is_old_call(node):
    return isinstance(node, list) and bool(node) and all(
        isinstance(each, list) and 3 <= len(each) <= 4 and isinstance(each[0], str)
        for each in node
    )  # fmt: skip


def _first_sizes(shape):
    """Batch sizes of all shapes in a nested value."""
    if isinstance(shape, dict):
        shape = list(shape.values())
    if not isinstance(shape, list) or not shape:
        return []
    if not isinstance(shape[0], (list, dict)):
        return [shape[0], *(size for each in shape[1:] for size in _first_sizes(each))]
    return [size for each in shape for size in _first_sizes(each)]


def _flat(values):
    if not isinstance(values, list):
        return [values]
    return [leaf for value in values for leaf in _flat(value)]


def _short(value):
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= 80 else f"{text[:77]}..."
