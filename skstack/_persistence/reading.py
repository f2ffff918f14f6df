"""Read an estimator from a tree of JSON nodes, after all of it has been checked."""

from __future__ import annotations

import base64
import io
import math
import pathlib
from collections import defaultdict

import numpy as np

from skstack._persistence import networks, parts
from skstack._persistence.known import known_class, known_function, known_type
from skstack._persistence.parts import check_state
from skstack._persistence.writing import CALLBACKS, INLINE, MAPPINGS

# Losses, metrics and the like take much more memory than their lines in the file.
_MOST_OBJECTS = 5_000
_NAMED = {
    "object": ("class", known_class),
    "type": ("name", known_type),
    "function": ("name", known_function),
}


class Reader:
    """Turns nodes and members (bytes by name) into an estimator."""

    def __init__(self, members, trust):
        self._members = members
        self._trust = trust
        self._done = {}

    # Checks: nothing is created; only skstack and its dependencies are imported -----------------

    def refuse_untrusted(self, root):
        """Raise if the tree names what is neither known nor trusted, or holds code."""
        names = set()
        n_objects = 0
        for node in _nodes(root):
            names.update(self._names_in(node))
            n_objects += node["is"] in ("keras", "callback")
            if n_objects > _MOST_OBJECTS:
                raise ValueError(f"it holds more than {_MOST_OBJECTS} objects of Keras")
        unknown = sorted(name for name in names if name not in self._trust)
        if unknown:
            reasons = "".join(_reason(name) for name in unknown)
            raise ValueError(
                f"it holds {unknown}, which could run untrusted code. If you know them and trust "
                f"the file, import their modules and pass trusted={unknown!r}{reasons}"
            )
        for name in sorted(names):
            self._trust.find(name)
        for node in _nodes(root):
            self._check_states_in(node)

    def _names_in(self, node):
        """Names in a node that are not known."""
        kind = node["is"]
        if kind in _NAMED:
            attribute, known = _NAMED[kind]
            return {node[attribute]} if known(node[attribute]) is None else ()
        if kind == "keras":
            return self._foreign(node, networks.names_in_config(node["config"]))
        if kind in ("model", "network"):
            return self._foreign(node, networks.names_in_archive(self._members[node["member"]]))
        if kind == "skops":
            return parts.untrusted_names(self._members[node["member"]])
        return ()

    def _check_states_in(self, node):
        """Raise for attributes that would shadow methods and properties of their class."""
        if node["is"] == "object":
            check_state(self._class(node), [key for key, _ in node["state"]])
        elif node["is"] == "network":
            from skstack._training.network import Network

            check_state(Network, [key for key, _ in node["state"]])
        elif node["is"] == "skops":
            parts.check_states(self._members[node["member"]], self._trust)

    def _class(self, node):
        return known_class(node["class"]) or self._trust.find(node["class"])

    def _foreign(self, node, names):
        full = {node["names"].get(name, name) for name in names}
        return {name for name in full if known_class(name) is None}

    # Construction --------------------------------------------------------------------------------

    def value(self, node):
        """The value of a node that was checked."""
        if not isinstance(node, dict):
            if isinstance(node, list) or (type(node) is float and not math.isfinite(node)):
                raise ValueError("a node is malformed")
            return node
        kind = node["is"]
        if kind == "again":
            return self._done[node["number"]]
        if kind in INLINE:
            return INLINE[kind][2]([self.value(each) for each in node["items"]])
        if kind in MAPPINGS:
            return self._fill(node, MAPPINGS[kind]())
        if "number" not in node:
            return getattr(self, f"_make_{kind}")(node)
        return getattr(self, f"_share_{kind}")(node)

    def _keep(self, node, value):
        self._done[node["number"]] = value
        return value

    def _make_float(self, node):
        return float(node["value"])

    def _make_bytes(self, node):
        return base64.b64decode(node["value"])

    def _make_path(self, node):
        return pathlib.Path(node["value"])

    def _make_scalar(self, node):
        dtype = _plain_dtype(node["dtype"])
        (value,) = np.frombuffer(base64.b64decode(node["value"]), dtype)
        return value

    def _make_dtype(self, node):
        return _plain_dtype(node["value"], objects=True)

    def _make_type(self, node):
        return known_type(node["name"]) or self._trust.find(node["name"])

    def _make_function(self, node):
        return known_function(node["name"]) or self._trust.find(node["name"])

    def _share_list(self, node):
        result = self._keep(node, [])
        result.extend(self.value(each) for each in node["items"])
        return result

    def _share_set(self, node):
        result = self._keep(node, set())
        result.update(self.value(each) for each in node["items"])
        return result

    def _share_defaultdict(self, node):
        return self._fill(node, defaultdict(self.value(node["factory"])))

    def _fill(self, node, result):
        self._keep(node, result)
        result.update((self.value(key), self.value(value)) for key, value in node["items"])
        return result

    def _share_array(self, node):
        return self._keep(node, _array(self._members[node["member"]]))

    def _share_objects(self, node):
        shape = tuple(node["shape"])
        if math.prod(shape) != len(node["items"]):
            raise ValueError("the number of items of an array does not match its shape")
        result = self._keep(node, np.empty(len(node["items"]), dtype=object))
        for index, item in enumerate(node["items"]):
            result[index] = self.value(item)
        return self._keep(node, result.reshape(shape))

    def _share_masked(self, node):
        data, mask, fill_value = map(self.value, node["items"])
        return self._keep(node, np.ma.MaskedArray(data, mask, fill_value=fill_value))

    def _share_model(self, node):
        return self._keep(node, self._read_model(node))

    def _share_network(self, node):
        from skstack._training.network import Network

        result = self._keep(node, object.__new__(Network))
        model = self._read_model(node)
        values = [np.array(variable.value) for variable in model.variables]
        if networks.digest(values) != node["digest"]:
            raise ValueError(
                "the weights of a network, or their order, differ after loading from those that "
                "were saved"
            )
        state = self._state(node["state"])
        state["variables"] = dict(zip(node["variables"], values, strict=True))
        vars(result).update(state)
        return result

    def _read_model(self, node):
        model = networks.read_model(self._members[node["member"]], self._customs(node))
        networks.set_seeds(model, self.value(node["seeds"]))
        return model

    def _share_keras(self, node):
        return self._keep(node, networks.object_from_config(node["config"], self._customs(node)))

    def _customs(self, node):
        return {
            name: known_class(full) or self._trust.find(full)
            for name, full in node["names"].items()
        }

    def _share_callback(self, node):
        import keras

        if node["name"] not in CALLBACKS:
            raise ValueError(f"{node['name']!r} is not one of the callbacks that are stored")
        arguments = {key: self.value(value) for key, value in node["items"]}
        if arguments.keys() != set(CALLBACKS[node["name"]]):
            raise ValueError(f"a callback has the arguments {sorted(arguments)}")
        return self._keep(node, getattr(keras.callbacks, node["name"])(**arguments))

    def _share_skops(self, node):
        return self._keep(node, parts.read_part(self._members[node["member"]], self._trust))

    def _share_object(self, node):
        known = known_class(node["class"])
        cls = self._class(node)
        result = self._keep(node, object.__new__(cls))
        state = self._state(node["state"])
        if known is not None and state.get("memory") is not None:
            raise ValueError("it names a folder of pickles as memory")
        if hasattr(cls, "get_params"):
            state.update({name: None for name in parts.EMPTIED if name in state})
        setter = next((each for each in cls.__mro__ if "__setstate__" in vars(each)), object)
        if setter.__module__.partition(".")[0] == "skstack":
            result.__setstate__(state)
        else:
            vars(result).update(state)
        return result

    def _state(self, pairs):
        state = {}
        for key, value in pairs:
            if not isinstance(key, str):
                raise ValueError("the name of an attribute is not a string")
            state[key] = self.value(value)
        return state


def _nodes(root):
    """All nodes of a tree, at any depth."""
    if isinstance(root, list):
        for each in root:
            yield from _nodes(each)
    elif isinstance(root, dict):
        yield root
        for part in ("items", "state", "seeds", "factory"):
            yield from _nodes(root.get(part))


def _reason(name):
    if name.endswith((".Tree", ".TreePredictor", ".KDTree", ".BallTree")):
        return (
            f" ({name}: the nodes of a tree are not checked by scikit-learn, so that crafted "
            "ones could crash the process)"
        )
    return ""


def _plain_dtype(text, *, objects=False):
    dtype = np.dtype(str(text))
    if dtype.hasobject and not objects:
        raise ValueError(f"{text!r} is not a dtype of plain values")
    return dtype


def _array(content):
    """An array from the bytes of a .npy file, whose size is checked."""
    file = io.BytesIO(content)
    shape, fortran, dtype = parts.read_array_header(file)
    values = np.frombuffer(content, dtype, offset=file.tell()).copy()
    return values.reshape(shape, order="F" if fortran else "C")
