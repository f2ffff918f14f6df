"""Where the parts of one fit run: in threads of this process, or on the workers of a cluster."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import CancelledError

import numpy as np
from joblib import effective_n_jobs, parallel_config
from joblib.parallel import get_active_backend
from sklearn import config_context, get_config
from sklearn.utils.parallel import Parallel, delayed

from skstack._base.atomic_fit import SentScope, in_fit_scope
from skstack._base.progress import current_task


def run_parts(function, common, parts, *, n_jobs=None):
    """Return ``function(*common, *part)`` for each part, in order.

    In a worker of a search the parts run one after another, because the search has the cores.
    Otherwise they run in threads, which share what is compiled, or on the workers of the cluster
    that the user has chosen by ``joblib.parallel_config``.

    Workers get the function by its name, and ``common`` once.
    """
    if in_worker():
        # All that is inside stays in this worker, too, whatever its n_jobs is.
        with parallel_config(backend="sequential"):
            return [function(*common, *part) for part in parts]
    backend, _ = get_active_backend()
    task = current_task()
    heard = task is not None and task.heard  # callbacks live in this process
    if len(parts) > 1 and not heard and (on_cluster := _cluster_of(backend, n_jobs)):
        return on_cluster(backend, _Job(function, common, parts), len(parts))
    function = in_fit_scope(function)
    # "prefer" is only a hint, which distributed backends ignore.
    return Parallel(n_jobs=n_jobs, require="sharedmem")(
        delayed(function)(*common, *part) for part in parts
    )


def in_worker():
    """Whether this is a worker of a parallel search, or a thread of another fit of parts."""
    backend, _ = get_active_backend()
    return bool(backend.nesting_level) or _in_dask_worker()


def _in_dask_worker():
    """Whether this thread runs a task of dask, whose backend does not count its nesting."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


class _Bits:
    """Row numbers in ascending order, as one bit for each row of the table."""

    def __init__(self, rows):
        mask = np.zeros(rows[-1] + 1, dtype=bool)
        mask[rows] = True
        self._bits, self._dtype = np.packbits(mask), rows.dtype

    def rows(self):
        """Return the row numbers."""
        return np.flatnonzero(np.unpackbits(self._bits)).astype(self._dtype)

    @staticmethod
    def of(value):
        """Return a value as bits if it is row numbers that then take less to send."""
        rows = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind == "i"
        if not rows or not len(value) or value[0] < 0 or value[-1] >= value.nbytes * 8:
            return value
        return _Bits(value) if (np.diff(value) > 0).all() else value


class _Job:
    """Parts and what they have in common, with the state of the fit that they belong to."""

    def __init__(self, function, common, parts):
        self.function, self.common = function, common
        self.parts = [tuple(map(_Bits.of, part)) for part in parts]
        self.scope, self.config = SentScope(), get_config()

    def run(self, number):
        """Run a part on a worker; nothing inside it leaves the worker."""
        part = [value.rows() if isinstance(value, _Bits) else value for value in self.parts[number]]
        inside = parallel_config(backend="sequential")
        with inside, config_context(**self.config), self.scope():
            return self.function(*self.common, *part)


_ATTEMPTS = 4  # as often as dask and Ray try a task


def _on_dask(backend, job, n):
    """Results of the parts; those of a worker that is lost are repeated."""
    client, results = backend.client, {}
    for _ in range(_ATTEMPTS):
        left = [number for number in range(n) if number not in results]
        n_copies = max(1, min(len(left), len(client.nthreads())))
        sent = client.scatter(job, broadcast=n_copies, hash=False)
        settings = {"pure": False, **backend.submit_kwargs}
        futures = [client.submit(_Job.run, sent, number, **settings) for number in left]
        try:
            for number, future in zip(left, futures, strict=True):
                # dask repeats tasks by itself, but what was sent to their workers is not made again
                # if all of these are lost.
                with contextlib.suppress(CancelledError):
                    results[number] = future.result()
        finally:
            client.cancel(futures)  # after an error, or Ctrl-C
        if len(results) == n:
            return [results[number] for number in range(n)]
    raise RuntimeError(f"The workers of dask were lost {_ATTEMPTS} times; see their logs.")


def _on_ray(backend, job, n):
    """Results of the parts, in tasks: actors, as in a pool, would compile anew in each call."""
    ray = sys.modules["ray"]  # its backend has imported it
    run = ray.remote(_Job.run).options(**(backend.ray_remote_args or {}))
    sent = ray.put(job)
    futures = [run.remote(sent, number) for number in range(n)]
    try:
        return ray.get(futures)
    except BaseException:  # Ctrl-C too
        for future in futures:
            ray.cancel(future)
        raise


# Backends of joblib whose workers may be other machines.
_CLUSTERS = {"DaskDistributedBackend": _on_dask, "RayBackend": _on_ray}


def _cluster_of(backend, n_jobs):
    """What runs parts on the cluster of a backend; None without one, or with one worker."""
    on_cluster = _CLUSTERS.get(type(backend).__name__)
    if on_cluster is _on_ray and not sys.modules["ray"].is_initialized():
        sys.modules["ray"].init()  # as its backend does
    return on_cluster if on_cluster and effective_n_jobs(n_jobs) > 1 else None
