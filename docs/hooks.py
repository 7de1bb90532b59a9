"""What mkdocs needs to know of this repository: pages that lie elsewhere, the reference, roles of docstrings."""

import html
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "src/thinwire/kernels/README.md": "kernels.md",
    "src/thinwire/wire/FORMAT.md": "format.md",
    "src/thinwire/weights/FORMAT.md": "weight-format.md",
}
"""Pages of the site that lie outside of docs/."""
REFERENCE = {
    "thinwire": ("thinwire", "thinwire.errors", "thinwire.config", "thinwire.layout", "thinwire.network"),
    "compressors": ("thinwire.compressors",),
    "methods": ("thinwire.methods",),
    "exchanges": ("thinwire.exchanges", "thinwire.exchanges.graphs", "thinwire.steps"),
    "memory": ("thinwire.memory",),
    "payloads": ("thinwire.payloads",),
    "wire": ("thinwire.wire",),
    "distributed": ("thinwire.distributed", "thinwire.worker"),
    "simulator": ("thinwire.simulator",),
    "weights": ("thinwire.weights",),
    "experiments": (
        "thinwire.experiments", "thinwire.experiments.tasks", "thinwire.experiments.spec",
        "thinwire.experiments.comparison_runner",
    ),
    "fault_tolerance": ("thinwire.fault_tolerance",),
    "integrations": (
        "thinwire.integrations.lightning", "thinwire.integrations.accelerate", "thinwire.integrations.transformers",
        "thinwire.integrations.sinks",
    ),
    "stores": ("thinwire.stores",),
    "ray": ("thinwire.ray",),
    "theory": ("thinwire.theory",),
}  # fmt: skip
"""Modules by the page of the reference that has them."""

_LINK = re.compile(r"(?<!!)\[([^\]\n]*)\]\(([^)\s]+)\)")
_FIGURE = re.compile(r'(?<=src=")docs/|(?<=srcset=")docs/')
_SESSION = re.compile(r"^(?:>>> .*\n(?:[^\n]+\n)*\n?)+", flags=re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=_with_links(source, page)))
    for name, modules in REFERENCE.items():
        content = f"# {name}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: object, config: MkDocsConfig, files: Files) -> str:
    """Links of pages in docs/ to files outside, as those of other pages."""
    source = page.file.src_uri  # type: ignore[attr-defined]
    return markdown if source in PAGES.values() else _links(markdown, f"docs/{source}", source)


def _with_links(source: str, page: str) -> str:
    text = _FIGURE.sub("", (ROOT / source).read_text(encoding="utf-8"))  # these pages lie at the top of the site
    return _links(text, source, page)


def _links(text: str, source: str, page: str) -> str:
    """Links to files of the repository become links within the site; to what is not on it, they become text."""

    def replaced(found: re.Match[str]) -> str:
        shown, target = found[1], found[2]
        path, hash_mark, anchor = target.partition("#")
        if not path or ":" in path:
            return found[0]
        path = normpath(str(PurePosixPath(source).parent / path))
        inside = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if inside is None:
            return shown if shown.startswith("`") else f"`{path}`"
        return f"[{shown}]({relpath(inside, PurePosixPath(page).parent)}{hash_mark}{anchor})"

    # Code stays as it is, also where >>> begins it without a fence.
    text = _SESSION.sub("```pycon\n\\g<0>```\n", text)
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(replaced, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(replaced, text[end:])])


_ROLE = re.compile(r":[a-z]+:`(~?)\.?([^`<]+)`")
_LABEL = re.compile(r"^(Constant|Bits|Paper|Use it when): ((?:.+\n?)(?:    .+\n?)*)", flags=re.MULTILINE)


class Roles(griffe.Extension):
    """Docstrings as this repository writes them, as mkdocstrings reads them."""

    def on_object(self, *, obj: griffe.Object, **rest: object) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = _readable(obj.docstring.value, obj)


def _readable(text: str, obj: griffe.Object) -> str:
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    text = re.sub(r"^::\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    text = _LABEL.sub(lambda found: f"- **{found[1]}:** {' '.join(found[2].split())}\n", text)
    text = re.sub(r"(?<=[^\n])\n- \*\*Constant", "\n\n- **Constant", text)
    return _ROLE.sub(lambda found: _reference(found[2], bool(found[1]), obj), text)


def _reference(name: str, is_short: bool, obj: griffe.Object) -> str:
    """A link to what is named, if it is on the site."""
    place = name
    if not name.startswith(("thinwire.", "torch.", "numpy.", "numba.")):
        holder = obj if obj.is_class else obj.parent if obj.parent is not None else obj
        scope = holder if name in holder.members else obj.module
        place = f"{scope.path}.{name}"
    shown = html.escape(name.rpartition(".")[2] if is_short else name)
    return f'<autoref optional identifier="{place}"><code>{shown}</code></autoref>'
