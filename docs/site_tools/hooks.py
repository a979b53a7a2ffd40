"""Hooks of mkdocs, so that the site is whole by itself: files of the repository to which pages link get a place in it."""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"\]\((?P<path>(?:\.\./)+[^)#\s]+)\)")
FOLDER = "repository"
PAGES = {"CONTRIBUTING.md": "contributing.md"}
"""files of the repository that are pages of the site, and their names there"""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """
    Add the pages that are not in docs/.

    :param files: the files of the site
    :return: the same files and these pages
    """
    for path, name in PAGES.items():
        text = (Path(config.config_file_path).parent / path).read_text()
        files.append(File.generated(config, name, content=text.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """
    Replace links that leave docs/ by links to a copy.

    :param markdown: the text of a page
    :return: the text with these links
    """
    docs, root = Path(config.docs_dir), Path(config.config_file_path).parent
    folder = (docs / page.file.src_uri).parent

    def inside(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / match["path"]))
        if target.is_relative_to(docs) or not target.is_relative_to(root) or not target.is_file():
            return match[0]
        path = target.relative_to(root).as_posix()
        name = PAGES.get(path, f"{FOLDER}/{path}")
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, content=target.read_bytes()))
        return f"]({os.path.relpath(docs / name, folder)})"

    return LINK.sub(inside, markdown)
