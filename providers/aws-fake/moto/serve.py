"""Serves moto, a fake of AWS by other authors, on a free port of loopback.

Prints the port, and ends when its standard input closes: so it lives no longer than whoever has
started it, also after a crash.
"""

import logging
import os
import sys

from moto.moto_server.threaded_moto_server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.buffer.read()
os._exit(0)
