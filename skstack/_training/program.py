"""Programs: private models, and what is traced from them once for all fits."""

# One fit on a program: its rows as tensors, its state, and epochs in as few calls as may be.
# Which fit gets which program: found again by key, bounded in number.

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Hashable

import numpy as np
import tensorflow as tf

from skstack._base.lru_cache import LRUCache
from skstack._training.data import Orders, Steps, bucket
from skstack._training.engines import has_own_train_step, why_not_masked
from skstack._training.epochs import TraceKey, epochs_function, steps_in_block
from skstack._training.layers import embedded_inputs
from skstack._training.model_io import call, call_input, compute_loss, rows_at_once
from skstack._training.monitor import plain
from skstack._training.network import in_order
from skstack._training.normalization import reading_their_variables
from skstack._training.objective import unlike
from skstack._training.optimizers import apply_without_reducing, share_steps
from skstack._training.seeds import build, inside_build, named_variables, values
from skstack._training.variables import OwnSession, VariableLayout


class Program:
    """One private model and optimizer, compiled, and the functions traced from them.

    Its model is never handed out, except to callbacks while they watch. Fits that only run traced
    functions do so side by side, each on variables of its own (see `VariableLayout`).
    """

    def __init__(self, blueprint, ingredients, table, key):
        self.key = key
        self.loss = ingredients.loss
        self.batch_size = ingredients.batch_size
        self.broken = {}  # trace -> why it cannot be taken
        self.traces = 0
        self.alone = threading.RLock()  # held by who uses, or traces, the model itself
        self._functions = {}
        self.model = reading_their_variables(build(blueprint))
        self.model.compile(
            optimizer=ingredients.make_optimizer(),
            loss=ingredients.loss,
            metrics=ingredients.make_metrics() or None,
            jit_compile=False,
        )
        self.optimizer = self.model.optimizer  # mixed_float16: wrapped by `compile`
        self.variables = named_variables(self.model)
        self._warm_up(table, blueprint)
        slowed = [(self.variables[path], share) for path, share in ingredients.shares]
        share_steps(self.optimizer, slowed)
        apply_without_reducing(self.optimizer)
        self.has_metrics = len(self.model.metrics) > 1  # more than the tracker of the loss
        self.own_step = has_own_train_step(self.model)
        self.one_by_one = self.has_metrics or self.own_step  # what is counted is read each epoch
        self.metrics_like = {}  # the structure of their values
        masks = why_not_masked(self.model, self.loss, has_metrics=self.has_metrics) is None
        self.masks = masks and not self.own_step  # rows of weight zero change nothing
        self.rows_at_once = rows_at_once(self.model, table.inputs)
        counters = [variable for metric in self.model.metrics for variable in metric.variables]
        self.slots = VariableLayout([*self.variables.values(), *self.optimizer.variables], counters)
        self._fresh_optimizer = values(self.optimizer.variables)
        self._rate = _place_of_rate(self.optimizer)
        self.bounds = embedded_inputs(self.model)
        self._trainable = [id(variable) for variable in self.model.trainable_variables]
        self._config = self._settings()

    def _warm_up(self, table, blueprint):
        """Create all variables now: inside a trace it would be too late."""
        if not self.model.trainable_variables:
            raise ValueError("The network has no trainable weights: there is nothing to fit.")
        self._copies = self._build_optimizer()
        arrays = table.arrays()
        # As many rows as there is nothing else of: what mixes rows with columns up fails here.
        n_rows = unlike(size for array in arrays for size in array.shape[1:])
        rows = np.arange(n_rows) % table.n_rows
        few = [tf.convert_to_tensor(array[rows]) for array in arrays]
        x, y, weights = table.layout().unpack(few)
        x = call_input(self.model, x)
        with _told(f"{blueprint!r} makes a network that"):
            y_pred = call(self.model, x, training=False)
        with _told(f"loss={self.loss!r}"):
            compute_loss(self.model, x, y, y_pred, weights, training=False)
        with _told("one of the metrics"):
            self.model.compute_metrics(x, y, y_pred, sample_weight=weights)

    def _build_optimizer(self) -> dict[int, str]:
        """Build it; find which of its variables start as copies of which weights."""
        trainable = {id(variable) for variable in self.model.trainable_variables}
        learned = {path: v for path, v in self.variables.items() if id(v) in trainable}
        before = values(learned.values())
        noise = np.random.default_rng(0)
        for variable in learned.values():
            variable.assign(noise.uniform(0.5, 1.0, variable.shape))
        self.optimizer.build(self.model.trainable_variables)
        marked = {path: variable.numpy() for path, variable in learned.items()}
        copies = {
            place: path
            for place, array in enumerate(values(self.optimizer.variables))
            for path, weights in marked.items()
            if array.shape == weights.shape and array.size and np.array_equal(array, weights)
        }
        for variable, array in zip(learned.values(), before, strict=True):
            variable.assign(array)
        return copies

    def start(self, variables, optimizer_start, learning_rate) -> list[np.ndarray]:
        """The packed state that a fit starts from: weights, then the optimizer's memory."""
        weights = in_order(self.variables, variables)
        if optimizer_start is None:
            optimizer = list(self._fresh_optimizer)
            for place, path in self._copies.items():
                optimizer[place] = variables[path]
        else:
            optimizer = list(optimizer_start)
        if len(optimizer) != len(self._fresh_optimizer):
            raise ValueError(
                f"`optimizer_start` has {len(optimizer)} arrays, the optimizer takes "
                f"{len(self._fresh_optimizer)}."
            )
        if learning_rate is not None and self._rate is not None:
            with np.errstate(over="ignore"):  # infinite: the weights will tell
                optimizer[self._rate] = np.asarray(learning_rate, optimizer[self._rate].dtype)
        return self.slots.pack([*weights, *optimizer])

    def adopt(self, state) -> None:
        """Give the model itself a packed state."""
        for variable, value in zip(self.slots.state, self.slots.unpack(state), strict=True):
            variable.value.assign(value)

    def own_state(self) -> list[np.ndarray]:
        """The packed state of the model itself."""
        return self.slots.pack(values(self.slots.state))

    def reset_model(self, state) -> None:
        """Forget whatever was done to the model itself."""
        self.adopt(state)
        if self.one_by_one:
            self.model.reset_metrics()
        self.model.stop_training = False
        self.model.run_eagerly = False

    def epochs(self, trace: TraceKey, *, own: bool = False):
        """Return the function that trains epochs, traced once; and the names of its logs.

        It is for `lane`; `own`: for the variables of the model itself.
        """
        with contextlib.suppress(KeyError):
            return self._functions[trace, own]
        with self.alone:
            if (trace, own) not in self._functions:
                function, names = epochs_function(self, trace)
                if trace.tail and not own and OwnSession.suits(function):
                    function = OwnSession(function, trace.takes(self), self.slots.all_variables)
                if trace.tail:
                    self._try(function, trace)
                self._functions[trace, own] = function, names
            return self._functions[trace, own]

    def lane(self, function, *, own: bool = False):
        """See `VariableLayout.lane`."""
        if isinstance(function, OwnSession):
            return function.lane()
        return self.slots.lane(function, own=own)

    def _try(self, function, trace):
        """Take one step on zeros: XLA compiles, or fails, at the first call."""
        arguments = [
            tf.zeros([1 if size is None else size for size in spec.shape], spec.dtype)
            for spec in trace.takes(self)
        ]
        first = len(trace.specs)
        n = steps_in_block(trace, self.batch_size) + 1
        arguments[first] = tf.zeros([n, self.batch_size], tf.int32)
        # Exact: a full batch, for else the block would not be compiled.
        arguments[first + 1] = tf.fill([n], self.batch_size)
        arguments[first + 2] = tf.constant([0, 1])
        if trace.watches:
            n_tested = first + 3 + len(trace.tested_specs)
            arguments[n_tested] = arguments[n_tested + 4] = tf.constant(1)
        with self.lane(function) as run:
            run(arguments)

    def reset_counted(self, handles) -> None:
        """Forget the rows that metrics have counted, inside a trace."""
        self._lifted("reset", self._reset)(*handles)

    def counted(self):
        """Return the function of handles that gives the values of the metrics."""
        return self._lifted("results", self._results)

    def _lifted(self, name, function):
        if name not in self._functions:
            self._functions[name] = self.slots.lift_captures(function, [])
        return self._functions[name]

    def _reset(self):
        self.model.reset_metrics()
        return []

    def _results(self):
        results = self.model.get_metrics_result()
        self.metrics_like = tf.nest.map_structure(lambda _: None, results)
        return [tf.convert_to_tensor(value) for value in tf.nest.flatten(results)]

    def finalized(self, state) -> list:
        """A packed state after training: with moving averages, where the optimizer keeps them."""
        if not _averages_weights(self.optimizer):
            return state
        with self.alone:
            if "finalize" not in self._functions:
                self._functions["finalize"] = self._finalize()
        with self.lane(self._functions["finalize"]) as run:
            return run(state)

    def _finalize(self):
        slots, specs = self.slots, self.slots.packed_specs

        def finalize():
            self.optimizer.finalize_variable_values(self.model.trainable_variables)
            return []

        lifted = slots.lift_captures(finalize, [])

        def run(*arguments):
            handles = arguments[len(specs) :]
            slots.load(handles, arguments[: len(specs)])
            lifted(*handles)
            return slots.read(handles)

        return tf.function(run, autograph=False).get_concrete_function(*specs, *slots.specs)

    def untouched(self) -> bool:
        """Whether callbacks left the model as it was traced."""
        return (
            self.model.optimizer is self.optimizer
            and self.model.loss is self.loss
            and [id(variable) for variable in self.model.trainable_variables] == self._trainable
            and self._config is not None
            and self._settings() == self._config
        )

    def _settings(self):
        """What is frozen in a trace and a callback may change; None where that is not known."""
        config = dict(self.optimizer.get_config())
        config.pop("learning_rate", None)  # a variable, or a schedule that nobody changes
        model = _config(self.model)
        return None if model is None else (model, repr(config))


def _averages_weights(optimizer):
    """Whether an optimizer, or one that it is made of, keeps averages to end with."""
    inner = getattr(optimizer, "inner_optimizer", None)
    several = type(optimizer).__name__ == "MultiOptimizer"
    return several or optimizer.use_ema or (inner is not None and _averages_weights(inner))


def _place_of_rate(optimizer):
    """Where the learning rate stands among an optimizer's variables; None for a schedule."""
    try:
        rate = optimizer.learning_rate
    except (AttributeError, ValueError):  # an optimizer of several others has none of its own
        return None
    places = [place for place, v in enumerate(optimizer.variables) if v is rate]
    return places[0] if places else None


@contextlib.contextmanager
def _told(what):
    """Say what it was that could not be computed."""
    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise
    except Exception as error:
        raise ValueError(
            f"{what} fails on the first rows: {type(error).__name__}: {error}"
        ) from error


def _config(model):
    try:
        return json.dumps(model.get_config(), default=repr)
    except (NotImplementedError, TypeError):  # subclassed, or made with what JSON cannot hold
        return None


# No signal is heard within a call. How many epochs it takes changes no bit of the result.
_ROWS_AT_FIRST = 2**18
_POSITIONS_A_CALL = 2**22  # of int32: 16 MB
_SECONDS_A_CALL = 2.0


class Compiled:
    """Trains some epochs at a time.

    Parameters
    ----------
    program : Program
    trace : Trace
    initial : list of ndarray
        Packed state to start from.
    table, held_out : Table
    plan : Plan

    Attributes
    ----------
    state : list of tensors or ndarrays
        Packed, of the network and the optimizer, after the last epoch.
    stopped : bool
        Whether the validation loss did not improve for long enough.
    """

    def __init__(self, program, trace, initial, table, held_out, plan):
        self._program = program
        self._plan = plan
        self._trace = trace
        self._run, self._own_names = program.epochs(trace, own=bool(plan.callbacks))
        self._data = table.tensors()
        self._tested = []
        if held_out is not None:
            # Few shapes, for the kernels of each are kept.
            n_padded = bucket(held_out.n_rows) if program.masks else held_out.n_rows
            self._tested = [*held_out.tensors(n_padded), tf.constant(held_out.n_rows)]
        self._orders = Orders(plan.seed, table.n_rows)
        self._most = max(_POSITIONS_A_CALL // table.n_rows, 1)
        self._chunk = max(_ROWS_AT_FIRST // table.n_rows, 1)
        self._padding = steps_in_block(self._trace, program.batch_size)
        patience = np.iinfo(np.int32).max if plan.patience is None else max(plan.patience, 1)
        self._patience = [tf.constant(plan.tol, tf.float32), tf.constant(patience, tf.int32)]
        self._best_loss = tf.constant(math.inf)
        self._without_better = tf.constant(0)
        self._best_state = None
        self._on_lane: Callable  # given by `lane`
        self.state = initial
        self.stopped = False

    @contextlib.contextmanager
    def lane(self, *, own: bool = False):
        """While open, epochs run on a lane; `own`: on the variables of the model itself."""
        with self._program.lane(self._run, own=own) as self._on_lane:
            yield

    def epochs(self, n_epochs: int) -> list[dict]:
        """Train at most `n_epochs`, fewer where that is enough; return the logs of each."""
        begun = time.perf_counter()
        orders = self._orders.next(min(n_epochs, self._chunk))
        steps = Steps(orders, self._program.batch_size, self._padding)
        watching = []
        if self.watches:
            tol, patience = self._patience
            watching = [*self._tested, self._best_loss, self._without_better, tol, patience]
        arguments = [*self._data, steps.rows, steps.counts, steps.borders, *watching, *self.state]
        found = self._on_lane(arguments)

        def take(n):
            taken, found[:n] = found[:n], []
            return taken

        n_run, losses = map(np.asarray, take(2))
        self.state = take(len(self.state))
        each = (time.perf_counter() - begun) / max(int(n_run), 1)
        self._chunk = int(np.clip(_SECONDS_A_CALL / max(each, 1e-6), 1, self._most))
        trained: list[dict] = [{}]
        if not self._program.own_step:
            trained = [{"loss": loss} for loss in steps.means(losses, n_run).tolist()]
        validated = []
        if self.watches:
            validated = [{"loss": float(loss)} for loss in np.asarray(take(1)[0])[:n_run]]
            best_loss, without_better = take(2)
            self._judge(best_loss, without_better, take(len(self.state)))
        if self._program.one_by_one:
            own = _like(dict.fromkeys(self._own_names), take)
            counted = _like(self._program.metrics_like, take)
            if own:  # as `Model.fit`: its metrics, or what the last step gave
                trained = [counted if own.keys() == counted.keys() else own]
            else:
                trained = [{**counted, **trained[0]}]
            if self.watches:
                validated = [{**_like(self._program.metrics_like, take), **validated[0]}]
        for epoch, tested in zip(trained, validated, strict=False):
            epoch.update({f"val_{name}": value for name, value in tested.items()})
        return trained

    @property
    def watches(self) -> bool:
        """Whether there are validation rows."""
        return self._trace.watches

    def _judge(self, best_loss, without_better, best_state):
        if float(best_loss) < float(self._best_loss):
            self._best_state = best_state
        self._best_loss, self._without_better = best_loss, without_better
        self.stopped = int(without_better) >= int(self._patience[1])

    def result(self) -> list:
        """The state to keep: that of the best epoch where early stopping was asked for."""
        if self._plan.patience is None or self._best_state is None:
            return self.state
        return self._best_state


def _like(structure, take):
    values = take(len(tf.nest.flatten(structure)))
    return tf.nest.pack_sequence_as(structure, list(map(plain, values)))


_MAX_PROGRAMS = 48


class Pool:
    """Programs by key, the least recently used dropped first.

    Fits of one key share one program and run side by side; a fit that shows the model to callbacks
    has a program to itself.
    """

    def __init__(self, max_programs: int = _MAX_PROGRAMS):
        self._max = max_programs
        self._shared: LRUCache[_SharedProgram] = LRUCache(max_programs)
        # Each with its key: what callbacks may see. The one given back last is the last.
        self._idle: list[tuple[Hashable, Program]] = []
        self._lock = threading.Lock()
        self.made = 0

    @contextlib.contextmanager
    def program(self, key, make, *, shown: bool = False):
        """Lend a program of this key; None: make a private one. No lock is held meanwhile.

        One that was shown to callbacks comes back only if they left it as it was.
        """
        if key is None or inside_build():  # a thread that builds a network must not wait
            yield self._made(make)
        elif not shown:
            yield self._shared.get(key, _SharedProgram).get(lambda: self._made(make))
        else:
            program = self._take(key) or self._made(make)
            try:
                yield program
            finally:
                if program.untouched():
                    self._give_back(key, program)

    def programs(self) -> list:
        """All programs that are kept."""
        shared = [entry.program for entry in self._shared.values() if entry.program is not None]
        with self._lock:
            return shared + [program for _, program in self._idle]

    def _made(self, make):
        program = make()
        with self._lock:
            self.made += 1
        return program

    def _take(self, key):
        with self._lock:
            for i in reversed(range(len(self._idle))):
                if self._idle[i][0] == key:
                    return self._idle.pop(i)[1]
            return None

    def _give_back(self, key, program):
        with self._lock:
            self._idle.append((key, program))
            del self._idle[: -self._max]


class _SharedProgram:
    """A program that is made once: the second of two threads waits for the first."""

    def __init__(self):
        self.program: Program | None = None
        self._making = threading.Lock()

    def get(self, make):
        with self._making:
            if self.program is None:
                self.program = make()
            return self.program


POOL = Pool()
