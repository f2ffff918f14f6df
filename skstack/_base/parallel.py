"""Where the parts of one fit run: in threads of this process, or on the workers of a cluster."""

from __future__ import annotations

import sys

from joblib import effective_n_jobs, parallel_config
from joblib.parallel import get_active_backend
from sklearn import config_context, get_config
from sklearn.utils.parallel import Parallel, delayed

from skstack._base.atomic_fit import in_fit_scope, sent_scope
from skstack._base.progress import current_task


def run_parts(function, common, parts, *, n_jobs=None):
    """Return ``function(*common, *part)`` for each part, in order.

    In a worker of a search the parts run one after another, because the search has the cores.
    Otherwise they run in threads, which share what is compiled, or on the workers of the cluster
    that the user has chosen by ``joblib.parallel_config``.

    Parameters
    ----------
    function : callable
        A function of a module: it is sent by name.
    common : tuple
        Arguments of all parts, sent once to each worker.
    parts : list of tuple
        Arguments of each part.
    n_jobs : int, default=None
        Number of threads.
    """
    if in_worker():
        # All that is inside stays in this worker, too, whatever its n_jobs is.
        with parallel_config(backend="sequential"):
            return [function(*common, *part) for part in parts]
    backend, _ = get_active_backend()
    on_cluster = _CLUSTERS.get(type(backend).__name__)
    task = current_task()
    heard = task is not None and task.heard  # callbacks live in this process
    if on_cluster and not heard and len(parts) > 1 and effective_n_jobs(n_jobs) > 1:
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


class _Job:
    """Parts and what they have in common, with the state of the fit that they belong to."""

    def __init__(self, function, common, parts):
        self.function, self.common, self.parts = function, common, parts
        self.scope, self.config = sent_scope(), get_config()

    def run(self, number):
        """Run a part on a worker; nothing inside it leaves the worker."""
        inside = parallel_config(backend="sequential")
        with inside, config_context(**self.config), self.scope():
            return self.function(*self.common, *self.parts[number])


def _on_dask(backend, job, n):
    """Results of the parts; those of a worker that is lost are repeated."""
    client = backend.client
    # Two copies at least: what was sent to a worker that is lost cannot be made again.
    n_copies = min(max(2, n), max(1, len(client.nthreads())))
    sent = client.scatter(job, broadcast=n_copies, hash=False)
    settings = {"pure": False, **backend.submit_kwargs}
    return client.gather([client.submit(_Job.run, sent, number, **settings) for number in range(n)])


def _on_ray(backend, job, n):
    """Results of the parts, in tasks: actors, as in a pool, would compile anew in each call."""
    import ray

    run = ray.remote(_Job.run).options(**(backend.ray_remote_args or {}))
    sent = ray.put(job)
    return ray.get([run.remote(sent, number) for number in range(n)])


# Backends of joblib whose workers may be other machines.
_CLUSTERS = {"DaskDistributedBackend": _on_dask, "RayBackend": _on_ray}
