"""What MkDocs needs to know: pages outside of docs/, and doctests in docstrings.

Pages link to each other, to results and to scripts by relative paths, so the links work in
a checkout too. Some files outside of docs/ join the site under the paths they have in
the repository. Links to them are rewritten to the site's own.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
OUTSIDE = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "experiments/FIGURES.md"),
    *("experiments/configs/*.py", "findings/*.sh", "results/README.md"),
    *("results/*.png", "results/figures/*.png", "tests/**/test_*.py"),
)
CODE = re.compile(r"`[^`\n]+`")  # in tables its bars are escaped, which MkDocs would show
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)#\s]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside of docs/ that pages link to."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links and bars that are right in the repository into those of the site."""
    site_path = page.file.src_uri
    if site_path == "results/README.md":
        page.meta["hide"] = ["toc"]  # its tables are wide
    in_repository = site_path if _is_outside(page.file) else f"docs/{site_path}"

    def rewritten(link: re.Match[str]) -> str:
        target = posixpath.normpath(
            posixpath.join(posixpath.dirname(in_repository), link[1])
        )
        on_site = target.removeprefix("docs/")
        return posixpath.relpath(on_site, posixpath.dirname(site_path) or ".")

    return CODE.sub(lambda code: code[0].replace("\\|", "|"), LINK.sub(rewritten, markdown))


def _is_outside(file: File) -> bool:
    return not os.path.realpath(str(file.abs_src_path)).startswith(str(ROOT / "docs"))


class Doctests(griffe.Extension):
    """Fence the examples of docstrings, which Markdown would take for quotations."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of a module, a class, a function or an attribute."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(docstring: str) -> str:
    """The docstring with every unindented doctest in a fence of its own."""
    return re.sub(
        r"(?m)^>>> (?:.+\n?)+",
        lambda found: f"```pycon\n{found[0].rstrip()}\n```\n",
        docstring,
    )
