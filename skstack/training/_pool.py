"""Which fit gets which program: found again by key, bounded in number."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict

from skstack.training._seeds import inside_build

_MAX_PROGRAMS = 48


class Pool:
    """Programs by key, the least recently used forgotten first.

    Fits of one key share one program and run side by side; a fit that shows the model to callbacks
    has a program to itself.
    """

    def __init__(self, max_programs: int = _MAX_PROGRAMS):
        self._max = max_programs
        self._shared: OrderedDict = OrderedDict()  # key -> [lock, program or None]
        self._idle: OrderedDict = OrderedDict()  # key -> programs that callbacks may see
        self._lock = threading.Lock()
        self.made = 0

    @contextlib.contextmanager
    def program(self, key, make, *, shown: bool = False):
        """Lend a program of this key; None: make a private one. No lock is held meanwhile.

        One that was shown to callbacks comes back only if they left it as it was.
        """
        if key is None or inside_build():  # who builds must wait for nobody
            yield self._made(make)
        elif not shown:
            yield self._get(key, make)
        else:
            program = self._take(key) or self._made(make)
            try:
                yield program
            finally:
                if program.untouched():
                    self._give_back(key, program)

    def programs(self) -> list:
        """All programs that are kept."""
        with self._lock:
            shared = [place[1] for place in self._shared.values() if place[1] is not None]
            return shared + [program for idle in self._idle.values() for program in idle]

    def _made(self, make):
        program = make()
        with self._lock:
            self.made += 1
        return program

    def _get(self, key, make):
        with self._lock:
            place = self._shared.setdefault(key, [threading.Lock(), None])
            self._shared.move_to_end(key)
            while len(self._shared) > self._max:
                self._shared.popitem(last=False)
        with place[0]:  # the second of two threads waits for what the first one makes
            if place[1] is None:
                place[1] = self._made(make)
            return place[1]

    def _take(self, key):
        with self._lock:
            programs = self._idle.get(key)
            if not programs:
                return None
            program = programs.pop()
            if not programs:
                del self._idle[key]
            return program

    def _give_back(self, key, program):
        with self._lock:
            self._idle.setdefault(key, []).append(program)
            self._idle.move_to_end(key)
            while sum(map(len, self._idle.values())) > self._max:
                oldest = next(iter(self._idle))
                self._idle[oldest].pop(0)
                if not self._idle[oldest]:
                    del self._idle[oldest]


POOL = Pool()
