"""Checks of the directory of a zip file, before any of its members is read."""

import stat
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence

__all__ = ["ZipError", "check_members", "stored_members"]


class ZipError(ValueError):
    """An error for a zip file that is refused. The message begins with "it" or "its part"."""


def stored_members(archive: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    """
    List the members of an uncompressed zip file.

    :param archive: the zip file
    :param size: the size of the file in bytes
    :return: its members, which have together no more bytes than the file
    :raises ZipError: if a member is invalid
    """
    members = archive.infolist()
    check_members(members, size, size, (zipfile.ZIP_STORED,))
    return members


def check_members(members: Sequence[zipfile.ZipInfo], size: int, limit: int, compressions: Collection[int]) -> None:
    """
    Check the members of a zip file.

    :param members: the directory of the zip file
    :param size: the size of the file in bytes
    :param limit: the largest total size of its unpacked members in bytes
    :param compressions: the allowed compression methods of members
    :raises ZipError: if members overlap, exceed the limit, have a name outside of the archive or a duplicate name, are links,
        are encrypted, or use another compression
    """
    for name, times in Counter(info.filename for info in members).items():
        if times > 1:
            raise ZipError(f"it holds {name!r} twice.")
    for info in members:
        name = info.filename
        path = name.replace("\\", "/")
        if not name.isprintable() or path.startswith("/") or ":" in path or ".." in path.split("/"):
            raise ZipError(f"its part {name!r} has a name that leads out of it.")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ZipError(f"its part {name!r} is a link.")
        if info.compress_type not in compressions or info.flag_bits & 1:
            raise ZipError(f"its part {name!r} is packed in a way that is not read.")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise ZipError(f"its part {name!r} promises {info.file_size} bytes and has {info.compress_size}.")
    packed, unpacked = (sum(getattr(info, kind) for info in members) for kind in ("compress_size", "file_size"))
    if packed > size or unpacked > limit:
        raise ZipError(f"it has {size} bytes and promises {unpacked}, more than can be in it.")
