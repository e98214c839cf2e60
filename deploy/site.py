"""What mkdocs does beside docs/: it takes in the pages that lie elsewhere, and files that pages link to.

The pages link to each other as files of the repository, so that they can be read there. The site has other addresses;
a link to what is neither a page nor a file stays as it is, and mkdocs complains.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs"
# Pages outside docs/, and their places in the site.
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "reporting.md",
    "exporters/explanations/findings.md": "findings.md",
    "exporters/explanations/glossary.md": "glossary.md",
}
RUNBOOKS = "exporters/runbooks"

# [text](target "title"), with the target's fragment apart; `code` and ``` blocks hold no links.
_CODE_OR_LINK = re.compile(
    r"(?P<code>```.*?```|`[^`\n]*`)|(?P<lead>\]\()(?P<path>[^)#\s:]+)(?P<rest>[#)\s])", re.DOTALL
)


def pages() -> dict[str, str]:
    """Return the pages outside docs/ by their path in the repository, with their places in the site."""
    runbooks = sorted((ROOT / RUNBOOKS).glob("*.md"))
    return ELSEWHERE | {f"{RUNBOOKS}/{path.name}": f"runbooks/{path.name}" for path in runbooks}


def place_of(path: str) -> str:
    """Return where the file at `path` of the repository is in the site."""
    if path.startswith(f"{DOCS}/"):
        return path.removeprefix(f"{DOCS}/")
    return pages().get(path) or f"files/{path}"


def linked_files(text: str, path: str) -> set[str]:
    """Return the files of the repository, other than pages, that the page at `path` links to."""
    return {
        target
        for match in _CODE_OR_LINK.finditer(text)
        if match["path"] and not (target := _target(match["path"], path)).endswith(".md")
        if (ROOT / target).is_file()
    }


def moved(text: str, path: str) -> str:
    """Return the text of the page at `path` of the repository with its links as the site has them."""

    def link(match: re.Match[str]) -> str:
        if match["code"]:
            return match["code"]
        target = _target(match["path"], path)
        if not (ROOT / target).is_file():
            return match[0]
        place = posixpath.relpath(place_of(target), posixpath.dirname(place_of(path)) or ".")
        return f"{match['lead']}{place}{match['rest']}"

    return _CODE_OR_LINK.sub(link, text)


def _target(link: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the sections of the navigation that list the pages of a directory."""
    listed = {
        "Alerts": [place for path, place in pages().items() if path.startswith(RUNBOOKS)],
        "Decisions": [f"decisions/{path.name}" for path in sorted((ROOT / DOCS / "decisions").glob("*.md"))],
    }
    for section in config.nav or []:
        for title in listed.keys() & section.keys():
            section[title] = listed[title]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere, and the files that pages link to."""
    documents = {f"{DOCS}/{file.src_uri}": ROOT / DOCS / file.src_uri for file in files.documentation_pages()}
    outside = {path: ROOT / path for path in pages()}
    for path in outside:
        files.append(File.generated(config, place_of(path), content=(ROOT / path).read_text()))
    for path, source in (documents | outside).items():
        for target in sorted(linked_files(source.read_text(), path)):
            if files.get_file_from_path(place_of(target)) is None:
                files.append(File.generated(config, place_of(target), abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Give a page's links the addresses of the site."""
    elsewhere = {place: path for path, place in pages().items()}
    return moved(markdown, elsewhere.get(page.file.src_uri, f"{DOCS}/{page.file.src_uri}"))
