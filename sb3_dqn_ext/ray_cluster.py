"""The connection to a Ray cluster: one that is started on this machine, or one that exists."""

import hashlib
import logging
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from sb3_dqn_ext._command_line import check_extra

__all__ = ["RayCluster"]

OBJECT_STORE_BYTES = 200 * 2**20


class RayCluster:
    """
    A connection to a Ray cluster.

    Without an address, a cluster is started on this machine. It ends with this process, in whichever way that ends. Its folder
    of temporary files is deleted at the end or, if this process was killed, when the owner's next cluster starts.

    :param owner: a folder that is locked by this process; one cluster at a time belongs to it
    :param address: the address of a cluster, such as ``"auto"`` for one that runs on this machine; None: start one
    :param runtime_env: the ``runtime_env`` of Ray: what is sent to the nodes, such as ``{"working_dir": "."}``
    :raises UnsupportedError: if Ray is not installed
    :raises ConnectionError: if there is no cluster at this address
    """

    def __init__(self, owner: Path, address: str | None = None, runtime_env: dict[str, Any] | None = None) -> None:
        check_extra("a Ray cluster", "ray")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to the makers of Ray
        # Ray lowers the priority of its processes by 15: beside any other process, a run would hardly be trained
        os.environ.setdefault("RAY_worker_niceness", "0")
        import ray  # 2.5 s, and an extra

        self.ray: Any = ray
        self._on_sigterm = signal.getsignal(signal.SIGTERM)  # Ray replaces it, in the main thread
        self.folder: Path | None = None
        if address is None:
            self.folder = _fresh_folder(owner)
            ray.init(
                address="local",
                runtime_env=runtime_env,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(self.folder),
            )
        else:
            ray.init(address=address, runtime_env=runtime_env, log_to_driver=False, logging_level=logging.WARNING)

    def restore_sigterm(self) -> None:
        """Restore the handler of SIGTERM that Ray has replaced."""
        if signal.getsignal(signal.SIGTERM) is not self._on_sigterm:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def close(self) -> None:
        """Disconnect, and restore the handler of SIGTERM. A cluster that was started here ends, and its files are deleted."""
        self.ray.shutdown()
        self.restore_sigterm()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _fresh_folder(owner: Path) -> Path:
    """Make the folder of the temporary files of a cluster, without those of an earlier cluster whose process was killed."""
    # a short path, because it is the beginning of those of sockets
    digest = hashlib.sha256(str(owner.resolve()).encode()).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"ray-{digest}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)  # it must not exist: in a folder of somebody else, others could read and write
    return folder
