"""MkDocs hooks: files outside docs/ become pages, links between pages are kept, API pages come from the docstrings."""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
# file of the repository -> page of the site
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "speecheq/inference/starter/README.md": "starter.md",
    "egs/mandarin/RESULTS.md": "results/mandarin.md",
    "egs/iemocap/RESULTS.md": "results/iemocap.md",
    "egs/mtl_aug/RESULTS.md": "results/mtl_aug.md",
    "egs/mandarin/results_speeds.md": "results/mandarin_speeds.md",
    "egs/iemocap/results_speeds.md": "results/iemocap_speeds.md",
    "egs/mandarin/results_backbone.md": "results/mandarin_backbone.md",
    "egs/mandarin/results_mtl.md": "results/mandarin_mtl.md",
    "egs/mandarin/results_known_speakers.md": "results/mandarin_known_speakers.md",
    "egs/iemocap/results_mtl.md": "results/iemocap_mtl.md",
    "egs/iemocap/results_cited.md": "results/iemocap_cited.md",
    "egs/iemocap/results_backbone.md": "results/iemocap_backbone.md",
    "egs/mandarin/results_from_scratch.md": "results/mandarin_from_scratch.md",
    "egs/iemocap/results_from_scratch.md": "results/iemocap_from_scratch.md",
}
API = ("corpora", "config", "features", "dataset", "models", "losses", "evaluation", "training", "inference")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def _api_page(package):
    """A page with the public names of each module of a package."""
    modules = sorted((ROOT / "speecheq" / package).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in modules]
    return f"# {package}\n\n" + "\n".join(f"::: {name}\n" for name in names)


def on_files(files, config):
    """Add the pages that do not lie in docs/."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)))
    files.append(File.generated(config, "api/index.md", content="# API\n\n::: speecheq\n\n::: speecheq.seqm\n"))
    for package in API:
        files.append(File.generated(config, f"api/{package}.md", content=_api_page(package)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point links at the site's pages; of a link to a file that is no page the text stays."""
    source = {site: path for path, site in PAGES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def moved(found):
        image, text, target, anchor = found.groups()
        if "://" in target:
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        to = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if to is None:
            return text
        relative = os.path.relpath(to, posixpath.dirname(page.file.src_uri) or ".")
        return f"{image}[{text}]({relative}{anchor or ''})"

    return LINK.sub(moved, markdown)
