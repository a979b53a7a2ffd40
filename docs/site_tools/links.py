"""``python docs/site_tools/links.py FOLDERS_AND_FILES``: ask each link that leads to the net whether it leads somewhere."""

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

LINK = re.compile(r"https?://[^\s<>\"'`\])}]+(?:\([^\s)]*\))?")
ALIVE = {401, 403, 405, 429, 503}  # there is somebody, who does not talk to programs, or not now
SECONDS = 20


def links(paths: list[Path]) -> dict[str, list[str]]:
    """
    :param paths: files, and folders of Markdown and Python
    :return: for each link where it stands, as file and line
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        files: Iterator[Path] = path.rglob("*") if path.is_dir() else iter([path])
        for file in sorted(one for one in files if one.suffix in (".md", ".py")):
            for n, line in enumerate(file.read_text().splitlines(), 1):
                for link in LINK.findall(line):
                    found.setdefault(link.rstrip(".,;:"), []).append(f"{file}:{n}")
    return found


def problem(link: str) -> str | None:
    """
    :param link: an address
    :return: why it leads nowhere, or None
    """
    try:
        with urlopen(Request(link, headers={"User-Agent": "Mozilla/5.0"}), timeout=SECONDS):
            return None
    except HTTPError as error:
        return None if error.code in ALIVE else str(error.code)
    except (OSError, HTTPException, ValueError) as error:
        return repr(error)


def main(paths: list[str]) -> int:
    """
    :param paths: of the command
    :return: 1 if a link leads nowhere
    """
    found = links([Path(path) for path in paths])
    with ThreadPoolExecutor(8) as pool:
        problems = dict(zip(found, pool.map(problem, found), strict=True))
    for link, why in problems.items():
        if why is not None:
            print(f"{link}: {why} ({', '.join(found[link])})")
    n_bad = sum(why is not None for why in problems.values())
    print(f"{len(found) - n_bad} of {len(found)} links lead somewhere.")
    return int(n_bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
