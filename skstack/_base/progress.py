"""Which part is being fitted: in lines of progress, in errors, and for scikit-learn's callbacks."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from contextvars import ContextVar
from typing import Any

from skstack._base.sklearn import callback_context, callbacks_of, need_fitted_estimator

_PARTS: ContextVar[tuple] = ContextVar("parts", default=())
_TASK: ContextVar[Task | None] = ContextVar("task", default=None)
_MOST_TASKS_OF_EPOCHS = 100  # of one training; what a bar does for each takes as long as an epoch


def report(line: str) -> None:
    """Print a line with the labels; one write, so that lines of threads do not mix."""
    label = f"[{', '.join(_PARTS.get())}] " if _PARTS.get() else ""
    sys.stdout.write(f"{label}{line}\n")
    sys.stdout.flush()


class Task:
    """A task of a fit that callbacks of scikit-learn are told of, with tasks of its own.

    ``context`` is a CallbackContext of scikit-learn, ``data`` its training rows: ``X``, ``y`` and
    ``metadata``.
    """

    def __init__(self, estimator: Any, context: Any, data: dict | None = None, n_epochs: int = 0):
        self.estimator = estimator
        self.heard = bool(callbacks_of(estimator))
        self._context = context
        self._data = data or {}
        self._n_epochs = n_epochs
        self._n_together = _epochs_in_task(estimator, n_epochs)
        self._begun = False
        self._n_reserved = 0

    @property
    def needs_estimator(self) -> bool:
        """Whether a callback needs a fitted estimator."""
        return need_fitted_estimator(callbacks_of(self.estimator))

    def reserve(self, n: int) -> int:
        """Reserve the ids of `n` subtasks; return the first one."""
        first = self._n_reserved
        self._n_reserved += n
        return first

    def subtask(self, name: str, task_id: int | None = None, *, n_epochs=0, data=None) -> Task:
        """A task inside this one, which has not begun."""
        n_tasks = _n_tasks_of_epochs(self.estimator, n_epochs)
        if self._context.sequential_subtasks:
            task_id = None
        elif task_id is None:
            task_id = self.reserve(1)
        context = self._context.subcontext(name, task_id=task_id, max_subtasks=n_tasks)
        return Task(self.estimator, context, data, n_epochs)

    def epochs(self, n_before: int) -> Task:
        """The task of the epoch behind `n_before`, or of the next ones; it has begun."""
        last = min(n_before + self._n_together, self._n_epochs)
        name = "epoch" if self._n_together == 1 else f"epochs {n_before + 1} to {last}"
        task = self.subtask(name, data=self._data)
        task.begin()
        return task

    def ends_task(self, n_trained: int) -> bool:
        """Whether a task of epochs ends when so many are trained."""
        return n_trained % self._n_together == 0 or n_trained == self._n_epochs

    def begin(self) -> None:
        """Tell callbacks that the task begins."""
        if not self._begun:
            self._begun = True
            self._context.call_on_fit_task_begin(estimator=self.estimator, **self._data)

    def end(self, attributes=None) -> bool:
        """Tell callbacks that the task ends; return whether one of them asks to stop.

        `attributes` are those of the fitted estimator, or a function that returns them.
        """
        self.begin()
        return self._context.call_on_fit_task_end(
            estimator=self.estimator, reconstruction_attributes=attributes, **self._data
        )

    def propagated_to(self, estimator: Any):
        """Context in which an estimator takes part in the tree, if it supports callbacks."""
        if not hasattr(estimator, "set_callbacks"):
            return contextlib.nullcontext()
        return self._context.propagate_callback_context(estimator)


def _epochs_in_task(estimator: Any, n_epochs: int) -> int:
    """Number of epochs that callbacks receive as one task; they get each fitted estimator."""
    if n_epochs <= _MOST_TASKS_OF_EPOCHS or need_fitted_estimator(callbacks_of(estimator)):
        return 1
    return -(-n_epochs // _MOST_TASKS_OF_EPOCHS)


def _n_tasks_of_epochs(estimator: Any, n_epochs: int) -> int:
    """Number of tasks of a training."""
    return -(-n_epochs // _epochs_in_task(estimator, n_epochs))


def current_task() -> Task | None:
    """The innermost task of this thread."""
    return _TASK.get()


def reserve_tasks(n: int) -> int:
    """Reserve ids, in order, for tasks that run in threads; return the first one."""
    task = _TASK.get()
    return 0 if task is None else task.reserve(n)


@contextlib.contextmanager
def fit_tasks(
    estimator,
    n_tasks: int = 0,
    *,
    n_epochs: int = 0,
    parallel: bool = False,
    X=None,
    y=None,
    weights=None,
):
    """Context in which an estimator is fitted by at most `n_tasks` tasks, or `n_epochs` epochs.

    The method that calls this has ``with_callbacks``. `parallel` tasks may run at the same time.
    """
    n_tasks = n_tasks or _n_tasks_of_epochs(estimator, n_epochs)
    context = callback_context(estimator, n_tasks, not parallel)
    task = None
    if context is not None:
        metadata = None if weights is None else {"sample_weight": weights}
        task = Task(estimator, context, {"X": X, "y": y, "metadata": metadata}, n_epochs)
        task.begin()
    token = _TASK.set(task)
    try:
        yield
        if task is not None:
            task.end({})  # the estimator is fitted
    finally:
        _TASK.reset(token)


@contextlib.contextmanager
def fitting(
    label: str, n: int | None = None, *, verbose=0, n_epochs: int = 0, task_id: int | None = None
):
    """Context of a part of a fit, in which `report` adds a label; it is a task for callbacks.

    At its end, with `verbose`, its time is reported. A task that fits a sub-estimator begins in
    `propagating`.

    `n` is the number of rows, `n_epochs` the largest number of epochs of the training that it is;
    `task_id` is from `reserve_tasks`.
    """
    outer = _TASK.get()
    task = None if outer is None else outer.subtask(label, task_id, n_epochs=n_epochs)
    if task is not None and n_epochs:
        task.begin()
    tokens = _PARTS.set((*_PARTS.get(), label)), _TASK.set(task)
    start = time.perf_counter()
    try:
        yield
        if verbose:
            rows = "" if n is None else f" on {n} rows"
            report(f"fitted{rows} in {time.perf_counter() - start:.1f} s")
        if task is not None:
            task.end()
    finally:
        _PARTS.reset(tokens[0])
        _TASK.reset(tokens[1])


@contextlib.contextmanager
def propagating(estimator):
    """Context in which a sub-estimator is fitted: what the current task, if there is one, does."""
    task = _TASK.get()
    if task is None:
        yield
        return
    with task.propagated_to(estimator):
        task.begin()
        yield


_SILENT_SECONDS = 5  # before progress is printed by itself


class StepCounter:
    """Prints how many steps of a report are done, to stderr.

    ``verbose`` is "auto", 0 or 1: to print after a while, never, or from the first step.
    """

    def __init__(self, name: str, verbose: Any, total: int):
        self.name = name
        self.wait = {"auto": _SILENT_SECONDS, 0: math.inf}.get(verbose, 0)
        self.total, self.done, self.start = total, 0, time.monotonic()

    @staticmethod
    def check(verbose: Any) -> None:
        """Raise unless `verbose` is valid."""
        if verbose not in ("auto", 0, 1):
            raise ValueError(f'verbose={verbose!r}; expected "auto", 0 or 1.')

    def __call__(self, function, *args):
        """Call a function, which is one step."""
        result = function(*args)
        self.done += 1
        seconds = time.monotonic() - self.start
        if seconds >= self.wait:
            total = max(self.total, self.done)  # there may be more steps than were expected
            sys.stderr.write(f"[{self.name}] {self.done} of {total} steps in {seconds:.0f} s\n")
        return result


@contextlib.contextmanager
def errors_named(label: str):
    """Context in which errors name the part that raised them."""
    try:
        yield
    except Exception as error:
        if label in str(error):
            raise
        if len(error.args) == 1 and error.args[0] == str(error):
            error.args = (f"{label}: {error}",)
        else:  # the message is made of several values
            error.add_note(f"Raised by: {label}")
        raise
