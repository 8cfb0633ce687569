"""Free TCP ports of 127.0.0.1.

Ports lie below 32768, where no client's own end of a connection can be given one, so a server that is killed can have
its port back. A port is handed out once in a process; runs at the same time start at different places at random.
"""

import random
import socket
import threading

_FIRST, _LAST = 10240, 32767
_lock = threading.Lock()
_next = random.SystemRandom().randint(_FIRST, _LAST)
_left = _LAST - _FIRST + 1


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def pick() -> int:
    """A port that nobody listens on. Fails with RuntimeError when there is none left."""
    global _next, _left
    with _lock:
        while _left > 0:
            port = _next
            _next = _FIRST if _next == _LAST else _next + 1
            _left -= 1
            if _is_free(port):
                return port
    raise RuntimeError(f"no free port on 127.0.0.1 between {_FIRST} and {_LAST}")
