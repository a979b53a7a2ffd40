"""Pages link to files of the repository that are none of the site's: these get a place in the site."""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"\]\((?P<path>(?:\.\./)+[^)#\s]+)\)")
FOLDER = "repository"


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """
    Let links that lead out of docs/ lead to a copy, so that the site is whole by itself.

    :param markdown: of a page
    :return: the same, with other links
    """
    docs, root = Path(config.docs_dir), Path(config.config_file_path).parent
    folder = (docs / page.file.src_uri).parent

    def inside(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / match["path"]))
        if target.is_relative_to(docs) or not target.is_relative_to(root) or not target.is_file():
            return match[0]
        name = f"{FOLDER}/{target.relative_to(root).as_posix()}"
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, content=target.read_bytes()))
        return f"]({os.path.relpath(docs / name, folder)})"

    return LINK.sub(inside, markdown)
