"""A fitted stack as one trainable network: upstream, scaler, downstream."""

from __future__ import annotations

import copy
from dataclasses import replace

import keras
import numpy as np

from skstack._base.disk_table import in_memory
from skstack._base.tables import columns_at, own_rows
from skstack._features.adapters import ModelAdapter
from skstack._graph.networks import apply_network
from skstack._graph.sklearn_steps import apply_scaler
from skstack._graph.tables import GraphTable, concatenate, numbers_of, refuse, unique_names
from skstack._stack.scaling import numeric_columns
from skstack._training.isolation import build
from skstack._training.keras_model import all_values, graph_layers, named_variables
from skstack._training.members import MemberBlueprint
from skstack._training.network import Network
from skstack._training.spares import leave_model
from skstack.networks._cloning import architecture
from skstack.networks._recipe import has_members

DOWNSTREAM = ""  # no branch has this name


class JointNetwork:
    """Blueprint of the network between the rows of a stack and the loss of its downstream.

    Its inputs are those of the upstream networks, and the columns of the downstream's table from
    other sources: columns that pass through, and branches that stay fixed. Steps before a network
    are not part of it. ``unfrozen`` holds the names of the layers to train, by branch (None: all
    trainable ones). ``start`` holds the fitted weights, ``layers`` the names of the trainable
    layers by branch, from bottom to top. A part of the stack that cannot become a layer raises a
    ValueError.
    """

    key = None

    def __init__(self, stack, branches, X, unfrozen=None, batch_normalization=False):
        self._stack = stack
        self._branches = tuple(branches)
        self._unfrozen = unfrozen
        self._normalizations = batch_normalization
        features = self._features(X)
        self._live = self._computed(X)
        table = stack._table(features, X)
        self._n_columns = table.shape[1]
        self._runs = self._numeric_runs(table)
        self._fixed = self._fixed_blocks()
        self._kinds = {
            key: (array.shape[1:], str(array.dtype)) for key, array in self._arrays(X).items()
        }
        model = build(self)
        self.start = all_values(model)
        self.key = None if self._text is None else ("joint", self._text)
        leave_model(self, model)

    def __repr__(self):
        return f"{type(self).__name__}({type(self._stack).__name__})"

    def with_unfrozen(self, X, unfrozen):
        """The same network with other layers to train."""
        return JointNetwork(self._stack, self._branches, X, unfrozen, self._normalizations)

    # Rows ------------------------------------------------------------------------------------

    def arrays(self, X):
        """Rows of X as inputs of this network."""
        return dict(zip(_names(self._kinds), self._arrays(X).values(), strict=True))

    def _arrays(self, X):
        stack, by_input = self._stack, {}
        for name, fitted, _ in stack.upstream_:
            if name in self._branches:
                arrays = _split(
                    fitted._upstreams[0], columns_at(X, self._stack._branch_columns[name])
                )
                by_input.update({(name, block): array for block, array in arrays.items()})
        table = in_memory(stack._table(self._features(X), X))
        for run in self._runs:
            if not isinstance(run, str):
                part = table.iloc[:, list(run)] if hasattr(table, "iloc") else table[:, list(run)]
                by_input[run] = np.ascontiguousarray(part, dtype=np.float32)
        scaled = stack._scaling.transform(table, allow_nan=stack._takes_nan)
        blocks = stack.downstream_.blocks_.split(scaled)
        by_input.update({(DOWNSTREAM, block): blocks[block] for block in self._fixed})
        return by_input

    def _features(self, X):
        return [
            fitted._extract(columns_at(X, self._stack._branch_columns[name]))
            for name, fitted, _ in self._stack.upstream_
        ]

    def _computed(self, X):
        """Indices of the columns of the table that this network computes, by branch."""
        computed, first = {}, 0
        for name, fitted, _ in self._stack.upstream_:
            if name in self._branches:
                columns = fitted._columns(columns_at(X, self._stack._branch_columns[name]))
                columns = columns[:-1] if fitted._feature_request.steps_output else columns
                computed[name] = range(first, first + sum(len(part.names) for part in columns))
            first += len(fitted.get_feature_names_out())
        return computed

    def _numeric_runs(self, table):
        """Numeric columns in order: the name of a branch that computes some, or indices."""
        owner = {index: name for name, indices in self._live.items() for index in indices}
        runs = []
        for index in np.flatnonzero(numeric_columns(table)).tolist():
            name = owner.get(index)
            if name is None and runs and isinstance(runs[-1], tuple):
                runs[-1] = (*runs[-1], index)
            elif name is None or not runs or runs[-1] != name:
                runs.append((index,) if name is None else name)
        return runs

    def _fixed_blocks(self):
        """Inputs of the downstream without columns that this network computes."""
        live = {index for indices in self._live.values() for index in indices}
        indices = self._stack.downstream_.blocks_.column_indices()
        return [block for block, own in indices.items() if not live & set(own)]

    # The network -----------------------------------------------------------------------------

    def build(self):
        """Build the ``keras.Model`` with the weights of the stack."""
        models = {}
        with unique_names():
            inputs = [
                keras.Input(shape, dtype=dtype, name=name)
                for name, (shape, dtype) in zip(
                    _names(self._kinds), self._kinds.values(), strict=True
                )
            ]
            tensors = dict(zip(self._kinds, inputs, strict=True))
            output = self._output(tensors, models)
            named = dict(zip(_names(self._kinds), inputs, strict=True))
            model = keras.Model(named, output, name="joint")
        self.layers = {
            name: list(self._set_flags(name, models[name], model)) for name in self._branches
        }
        paths = {id(variable): path for path, variable in named_variables(model).items()}
        self._paths = {
            part: {
                own: paths[id(variable)]
                for own, variable in named_variables(network).items()
                if id(variable) in paths
            }
            for part, network in models.items()
        }
        self._text = architecture(model)
        return model

    def _output(self, tensors, models):
        stack = self._stack
        features = {}
        for name, fitted, _ in stack.upstream_:
            if name in self._branches:
                own = {key[1]: tensor for key, tensor in tensors.items() if key[0] == name}
                upstream = _recorded(fitted._upstreams[0], models, name)
                request = replace(fitted._feature_request, steps_output=False)
                parts = upstream.graph(GraphTable(split=own), request, name)
                features[name] = concatenate(parts, f"{name}_features")
        columns, width = [None] * self._n_columns, 0
        for run in self._runs:
            for index in self._live[run] if isinstance(run, str) else run:
                columns[index] = width
                width += 1
        numeric = [features[run] if isinstance(run, str) else tensors[run] for run in self._runs]
        table = apply_scaler(stack.scaler_, GraphTable(columns, concatenate(numeric, "table")), "")
        downstream = stack.downstream_
        inputs = {}
        for block in downstream.blocks_.blocks_:
            if (DOWNSTREAM, block.name) in tensors:
                inputs[block.name] = tensors[DOWNSTREAM, block.name]
            elif block.kind != "numeric":
                refuse("The downstream", f"its input {block.name!r} has the kind {block.kind!r}.")
            else:
                indices = downstream.blocks_.column_indices()[block.name]
                inputs[block.name] = numbers_of(table, indices, "downstream", "The downstream")
        network = _RecordedNetwork(trained_network(downstream), models, DOWNSTREAM)
        (output,), _ = apply_network(network, inputs, "downstream")
        return output

    def _set_flags(self, name, network, model):
        """Freeze layers that are not trained; yield the names of the trainable ones."""
        used = {id(variable) for variable in model.variables}
        for path, layer in graph_layers(network):
            normalizes = isinstance(layer, keras.layers.BatchNormalization)
            tuned = self._normalizations is True or f"{name}/{path}" in (self._normalizations or ())
            if normalizes and not tuned:
                layer.trainable = False
            if any(id(variable) in used for variable in layer.trainable_variables):
                yield path
            if self._unfrozen is not None and path not in self._unfrozen[name]:
                layer.trainable = False

    # Weights ---------------------------------------------------------------------------------

    def weights_of(self, part, variables):
        """Weights of a branch, or of ``DOWNSTREAM``, by the paths of its own network."""
        return {own: variables[path] for own, path in self._paths[part].items()}

    def paths_of(self, part):
        """Paths in this network of the weights of a branch."""
        return list(self._paths[part].values())


def trained_network(downstream):
    """The fitted network of a downstream in the form in which it is trained."""
    network = downstream.network_
    if not has_members(network.blueprint, network.variables):
        return network
    return Network(MemberBlueprint(network.blueprint), network.variables)


def _names(kinds):
    # Names of branches and columns may be any string.
    return [f"rows_{index}" for index in range(len(kinds))]


def _split(upstream, X):
    """Inputs of the network of an upstream for some rows."""
    X = X if upstream.steps is None else upstream.steps.transform(own_rows(X))
    view = upstream.view
    return view.blocks.split(X) if isinstance(view, ModelAdapter) else view.estimator._inputs(X)


class _TrainableBlueprint:
    """A blueprint that builds a trainable network, even for a frozen one."""

    key = None

    def __init__(self, blueprint):
        self.build = getattr(blueprint, "unfrozen", blueprint.build)


class _RecordedNetwork:
    """A network that records the model it is built as in ``models``."""

    blueprint = None

    def __init__(self, network, models, part):
        self._network, self._models, self._part = network, models, part

    def build(self):
        if self._part not in self._models:
            blueprint = _TrainableBlueprint(self._network.blueprint)
            self._models[self._part] = Network(blueprint, self._network.variables).build()
        return self._models[self._part]


def _recorded(upstream, models, name):
    """The same upstream without its steps; its network is recorded when it is built."""
    view = copy.copy(upstream.view)
    if isinstance(view, ModelAdapter):
        view.network = _RecordedNetwork(view.network, models, name)
    else:
        view.estimator = copy.copy(view.estimator)
        view.estimator.network_ = _RecordedNetwork(view.estimator.network_, models, name)
    return replace(upstream, steps=None, view=view)
