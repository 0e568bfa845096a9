"""``python -m mrigan`` and the ``mrigan`` command."""

import os
import sys
import threading

from mrigan.cli.run import run
from mrigan.environment import worker_folder


def main() -> None:
    """Run the command line and leave with its exit status, whatever still waits for a server."""
    status = run(sys.argv[1:])
    others = (each for each in threading.enumerate() if each is not threading.main_thread())
    is_rank = worker_folder() is not None
    if is_rank or not all(thread.daemon for thread in others):
        # An ordinary exit would wait for them: minutes, where a store has gone silent. And gloo's
        # own threads, after a failure, make it abort: SIGABRT in place of the status.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
