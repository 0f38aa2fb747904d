"""What kind of disk a folder is on."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import psutil

# File systems whose files other machines may have open too. What is mapped into memory there is not
# shared with those.
NETWORK = frozenset(
    "9p afs beegfs ceph cifs glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs pvfs2 smb2 smb3 "
    "smbfs virtiofs webdav wekafs".split()
)


def on_network_disk(folder: Path) -> bool:
    """Whether a folder is on a network disk; also where it is mounted by a program (sshfs, rclone).

    False where the system does not say.
    """
    try:
        return _is_network(str(folder.resolve()), os.stat(folder).st_dev)
    except OSError:
        return False


@lru_cache(maxsize=1024)
def _is_network(folder: str, device: int) -> bool:
    """`device`: another one is mounted there where it changes."""
    mounted = {place.mountpoint: place.fstype.lower() for place in psutil.disk_partitions(all=True)}
    while folder not in mounted and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    kind = mounted.get(folder, "")
    return kind in NETWORK or kind == "fuse" or kind.startswith("fuse.")
