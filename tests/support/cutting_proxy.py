"""A TCP proxy that cuts connections after so many bytes."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK = 16_384


class CuttingProxy:
    """Passes bytes between who connects and ``target``. Each connection is cut after its number of bytes upwards.

    ``cuts`` gives the number for the first connections, in order; later ones, and those with None, are not cut.
    """

    def __init__(self, target: tuple[str, int], cuts: list[int | None]) -> None:
        self._target, self._cuts = target, cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.cut = 0

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._sockets):
            _end(one)
        for thread in list(self._threads):
            thread.join(5)

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                allowed = self._cuts.pop(0) if self._cuts else None
                self._start(self._pass, client, server, allowed)
                self._start(self._pass, server, client, None)

    def _pass(self, source: socket.socket, sink: socket.socket, allowed: int | None) -> None:
        passed = 0
        with suppress(OSError):
            while chunk := source.recv(_CHUNK):
                if allowed is not None and passed + len(chunk) >= allowed:
                    sink.sendall(chunk[: allowed - passed])
                    self.cut += 1
                    break
                sink.sendall(chunk)
                passed += len(chunk)
        _end(source)
        _end(sink)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
