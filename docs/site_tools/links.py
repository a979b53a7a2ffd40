"""``python docs/site_tools/links.py FOLDERS_AND_FILES``: check that the links to other sites work."""

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

LINK = re.compile(r"https?://[^\s<>\"'`\])}]+(?:\([^\s)]*\))?")
ALIVE = {401, 403, 405, 429, 503}  # the page exists, but the server refuses programs, or is busy
SECONDS = 20


def links(paths: list[Path]) -> dict[str, list[str]]:
    """
    Find the links in files.

    :param paths: files, and folders of Markdown and Python
    :return: the places of each link, as file and line
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
    Open a link.

    :param link: an address
    :return: the problem, or None if the link works
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
    Print the links that do not work.

    :param paths: the arguments of the command
    :return: 1 if a link does not work, else 0
    """
    found = links([Path(path) for path in paths])
    with ThreadPoolExecutor(8) as pool:
        problems = dict(zip(found, pool.map(problem, found), strict=True))
    for link, why in problems.items():
        if why is not None:
            print(f"{link}: {why} ({', '.join(found[link])})")
    n_bad = sum(why is not None for why in problems.values())
    print(f"{len(found) - n_bad} of {len(found)} links work.")
    return int(n_bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
