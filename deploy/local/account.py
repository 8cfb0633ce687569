"""As whom a server runs when we are root.

Database servers refuse to run as root unless told to, and rightly. So they run as `nobody`; but not below a directory that
only root may enter (root's home, pytest's temporary directories), where nobody could not reach its files.
"""

import os
import pwd
import stat
from pathlib import Path
from typing import List, NamedTuple


class Account(NamedTuple):
    name: str
    uid: int
    gid: int
    prefix: List[str]  #: for Process: options of setpriv that change to it

    def own(self, directory: Path) -> None:
        """Gives it a directory with everything in it."""
        if os.geteuid() != 0:
            return
        os.chown(directory, self.uid, self.gid)
        for folder, folders, files in os.walk(directory):
            for name in folders + files:
                os.chown(os.path.join(folder, name), self.uid, self.gid, follow_symlinks=False)


def _all_may_enter(directory: Path) -> bool:
    return all(p.stat().st_mode & stat.S_IXOTH for p in [directory, *directory.parents])


def for_server(directory: Path) -> Account:
    """The account for a server whose directory lies in `directory`, which exists: ourselves, unless we are root."""
    me = pwd.getpwuid(os.geteuid())
    if me.pw_uid != 0 or not _all_may_enter(directory.resolve()):
        return Account(me.pw_name, me.pw_uid, me.pw_gid, [])
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_name, nobody.pw_uid, nobody.pw_gid,
                   [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"])
