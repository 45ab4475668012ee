"""The page: one HTML file without a single request, readable on a phone, by day and by night."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from vjepa2cli.errors import ArtifactError
from vjepa2cli.reporting.style import CSS

_IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_VIDEO_TYPES = {".mp4": "video/mp4"}


def text(value: object) -> str:
    """Escaped text."""
    return html.escape(str(value))


def paragraph(words: str, *, kind: str = "") -> str:
    """A paragraph of plain words, of a CSS class where one is named; empty words give nothing."""
    return f"<p{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{text(words)}</p>\n" if words else ""


def bullets(lines: Iterable[str]) -> str:
    """A list of plain sentences."""
    return f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already; the columns `numbers` are set to the right. It scrolls sideways on a phone."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=n' if index in numbers else ''}>{cell}</{tag}>" for index, cell in enumerate(cells))

    body = "".join(f"<tr>{line(row, 'td')}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{line(head, "th")}</tr></thead><tbody>\n{body}</tbody></table></div>\n'


def figure(drawing: str, caption: str, *, wide: bool = False) -> str:
    """A drawing (SVG or a film strip) over its caption."""
    return f"<figure{' class=wide' if wide else ''}>{drawing}<figcaption>{text(caption)}</figcaption></figure>\n"


def figures(drawings: Iterable[str]) -> str:
    """Figures side by side where there is room."""
    return f'<div class="figures">\n{"".join(drawings)}</div>\n'


def folded(title: str, content: str) -> str:
    """Content that a click unfolds."""
    return f"<details><summary>{text(title)}</summary>{content}</details>\n"


def section(anchor: str, title: str, *parts: str) -> str:
    """A chapter with an anchor."""
    return f'<section id="{anchor}"><h2>{text(title)}</h2>\n{"".join(parts)}</section>\n'


def image(path: Path, description: str) -> str:
    """A picture from a file, inside the page; raises ArtifactError where it cannot be read."""
    return f'<div class="strip"><img alt="{text(description)}" src="{_data_uri(path, _IMAGE_TYPES)}"></div>'


def picture(content: bytes, description: str) -> str:
    """A picture from the bytes of a PNG file, inside the page."""
    encoded = base64.b64encode(content).decode()
    return f'<div class="strip"><img alt="{text(description)}" src="data:image/png;base64,{encoded}"></div>'


def video(path: Path) -> str:
    """A short video from a file, inside the page."""
    return f'<video controls muted loop playsinline preload="metadata" src="{_data_uri(path, _VIDEO_TYPES)}"></video>'


def document(title: str, *, navigation: Sequence[tuple[str, str]], body: str, digest: str, footer: str) -> str:
    """The whole page; `navigation` holds (anchor, name) pairs, `digest` names the content without its wall times."""
    links = "".join(f'<a href="#{anchor}">{text(name)}</a>' for anchor, name in navigation)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="vjepa2cli-digest" content="{digest}">\n<title>{text(title)}</title>\n'
        f'<link rel="icon" href="data:,">\n<style>{CSS}</style>\n</head>\n<body>\n'
        f"<header><h1>{text(title)}</h1><nav>{links}</nav></header>\n<main>\n{body}</main>\n<footer>{footer}</footer>\n</body>\n</html>\n"
    )


def _data_uri(path: Path, types: dict[str, str]) -> str:
    if path.suffix.lower() not in types:
        raise ArtifactError(f"{path}: cannot be put on the page; allowed are {', '.join(types)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); the report that names it must be made again") from None
    return f"data:{types[path.suffix.lower()]};base64,{base64.b64encode(content).decode()}"
