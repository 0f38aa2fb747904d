"""Python for tests: what takes long to import runs in a fork of `server.py`, all else as it is.

`launcher.py SOCKET PYTHON NAME ARGUMENTS…`: like `PYTHON ARGUMENTS…`, which calls itself NAME. This
process stands for the fork: it passes signals on, ends as the fork ends, and takes it along when it
is killed. It imports next to nothing, so that it starts in a hundredth of a second.
"""

import contextlib
import marshal
import os
import signal
import socket
import sys

MODULES = ("diffusion_core", "torch.distributed.run", "streamlit")
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def main() -> None:
    address, python, name, *words = sys.argv[1:]
    plain = [word for word in words[:1] if word != "-u"] + words[1:]
    if plain[:1] != ["-m"] or plain[1] not in MODULES:
        os.execv(python, [python, *words])
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    request = {
        "arguments": plain[1:],
        "function": b"",
        "shown": [name, *words],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "executable": name,
        "namespace": True,
    }
    body = marshal.dumps(request)
    network = os.open("/proc/self/ns/net", os.O_RDONLY)
    socket.send_fds(server, [len(body).to_bytes(4, "little")], [0, 1, 2, network])
    server.sendall(body)
    pid = number_from(server)
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: pass_on(pid, number))
    code = os.waitstatus_to_exitcode(number_from(server))
    if code < 0:
        with contextlib.suppress(OSError):  # which SIGKILL does not allow
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def number_from(server: socket.socket) -> int:
    if not (answer := server.recv(4)):
        sys.exit("The fork server of the tests is gone.")
    return int.from_bytes(answer, "little")


def pass_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)


main()
