"""Programs in processes that know nothing of this one, for what is saved here and read elsewhere.

Importing TensorFlow takes a process several seconds. So one process imports it for all programs,
with what it shares with skstack, and starts nothing of it. Each program runs in a fork of that.
Neither skstack nor the modules of tests are imported there.
"""

import atexit
import gc
import importlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import types
from functools import cache
from pathlib import Path

_OUTPUTS = ("stdout", "stderr")


def run(code, *arguments, cwd=None):
    """Run code to its end, as `python -c` does, and return what it printed."""
    program = Program(code, *arguments, cwd=cwd)
    assert program.wait() == 0, program.stderr[-3000:]
    return program.stdout


class Program:
    """Code that runs in a process of its own from now on."""

    def __init__(self, code, *arguments, cwd=None):
        self._folder = tempfile.TemporaryDirectory()
        self._connection = _connected()
        order = {
            "code": code,
            "arguments": [str(argument) for argument in arguments],
            "cwd": os.path.abspath(cwd or "."),
            "folder": self._folder.name,
            "optimizer": _optimizer().get_experimental_options(),
        }
        self._connection.sendall(json.dumps(order).encode() + b"\n")

    def wait(self):
        """Wait for the end, and return the exit status: of a signal, its negative number."""
        with self._folder as folder, self._connection:
            with self._connection.makefile() as answer:
                status = int(answer.readline())
            self.stdout, self.stderr = (Path(folder, name).read_text() for name in _OUTPUTS)
        return status


def _optimizer():
    """TensorFlow's optimizer of graphs: on some processors, bits depend on what it does."""
    import tensorflow as tf

    return tf.config.optimizer


def _connected():
    for shared in (True, False):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(300)
        try:
            connection.connect(_address(shared))
            return connection
        except (ConnectionRefusedError, FileNotFoundError):  # the worker that shared it has ended
            connection.close()
    raise AssertionError("no process that forks others")


@cache
def _address(shared):
    """Start the process that forks the others; it ends with this one.

    Workers of pytest-xdist share that of the first who needs one.
    """
    folder = tempfile.TemporaryDirectory()
    workers = os.environ.get("PYTEST_XDIST_TESTRUNUID") if shared else None
    address = os.path.join(folder.name, "socket")
    if workers is not None:
        address = os.path.join(tempfile.gettempdir(), f"skstack-{workers}")
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(address)
    except OSError:  # another worker did
        listening.close()
        folder.cleanup()
        return address
    listening.listen()
    number = listening.fileno()
    process = subprocess.Popen(
        [sys.executable, __file__, str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[number],
    )

    def stop():
        os.unlink(address)
        process.communicate()
        folder.cleanup()

    atexit.register(stop)
    listening.close()
    return address


def _next_program(listening):
    """Return the order of a program in each process that is to run one, and None at the end."""
    watching = []  # processes that wait for a program
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        watching = [process for process in watching if os.waitpid(process, os.WNOHANG)[0] == 0]
        if sys.stdin in ready:
            for process in watching:
                os.waitpid(process, 0)
            return None
        connection, _ = listening.accept()
        watching.append(os.fork())
        if watching[-1] == 0:
            listening.close()
            with connection, connection.makefile() as orders:
                order = json.loads(orders.readline())
                program = os.fork()
                if program != 0:
                    status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
                    connection.sendall(b"%d\n" % status)
                    os._exit(0)
            return order
        connection.close()


def _run_as_main(order):
    os.chdir(order["cwd"])
    inputs = os.open(os.devnull, os.O_RDONLY)
    files = [os.open(Path(order["folder"], name), os.O_WRONLY | os.O_CREAT) for name in _OUTPUTS]
    for number, file in enumerate([inputs, *files]):
        os.dup2(file, number)
    sys.argv = ["-c", *order["arguments"]]
    sys.path[0] = ""  # where this file lies
    _optimizer().set_experimental_options(order["optimizer"])
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(order["code"], "<string>", "exec"), vars(main))


if __name__ == "__main__":
    first = "skops.io"  # see conftest.py
    for name in (first, "imblearn.pipeline", "keras", "pandas", "sklearn.ensemble", "tensorflow"):
        importlib.import_module(name)
    assert "skstack" not in sys.modules
    gc.freeze()
    if (order := _next_program(socket.socket(fileno=int(sys.argv[1])))) is not None:
        _run_as_main(order)
