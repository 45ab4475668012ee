"""Where the numbers come from: the walk from a success rate back to the recordings, by digests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vjepa2cli.reporting import page
from vjepa2cli.reporting.sources import ENCODERS, Source

ORDER = ("plan", "evaluation", "validation", "probe", "posttrain", "latents", "pretrain", "store", "collection")
"""Kinds from the result back to the recordings."""

_VERBS = {
    "evaluation": "evaluate",
    "validation": "validate",
    "latents": "precompute",
    "store": "ingest",
    "collection": "collect",
}
_SHOWN_RECORDINGS = 12


@dataclass(frozen=True)
class Link:
    """One input of a source: what the source calls it, its digest, and the source on this page that made it, if any."""

    name: str
    digest: str
    maker: Source | None


def produced(source: Source) -> Iterator[str]:
    """Digests of what a source made, by which others name it as their input."""
    body = source.body
    encoder = body.get("encoder")
    candidates = {
        "pretrain": encoder.get("digest") if isinstance(encoder, Mapping) else None,
        "posttrain": body.get("digest_model"),
        "store": body.get("digest"),
        "latents": body.get("digest"),
    }
    if candidates.get(source.kind):
        yield str(candidates[source.kind])


def links(source: Source, sources: Sequence[Source]) -> list[Link]:
    """The inputs that a source names, each with its maker."""
    makers = {digest: other for other in sources for digest in produced(other)}
    inputs = source.provenance.get("inputs") or {}
    return [Link(name, digest, makers.get(digest)) for name, digest in sorted(inputs.items())]


def ancestry(source: Source, sources: Sequence[Source]) -> list[Source]:
    """The source and all that it was made from, as far as digests tell and the page holds it; nearest first."""
    found, waiting = [source], [source]
    while waiting:
        here = waiting.pop(0)
        above = [link.maker for link in links(here, sources) if link.maker is not None]
        above += [other for other in sources if other.kind == "collection" and here.kind == "store" and recorded(here, other)]
        for other in above:
            if other not in found:
                found.append(other)
                waiting.append(other)
    return sorted(found, key=lambda other: ORDER.index(other.kind))


def recorded(store: Source, collection: Source) -> int:
    """How many videos of a store bear the name of an episode of a collection."""
    episodes = set(collection.body["episodes"])
    return sum(bool(episodes & set(name.split("/"))) for name in store.body["sources"])


def lineage(sources: Sequence[Source]) -> str:
    """The chain of the first success rate (or whatever is furthest down), and every digest in a table."""
    known = [source for source in sources if source.kind in ORDER]
    if not known:
        return ""
    last = min(known, key=lambda source: (ORDER.index(source.kind), ENCODERS.index(source.encoder)))
    chain = ancestry(last, known)
    whole = chain[-1].kind in ("store", "collection")
    lead = "Every artefact names its inputs by SHA-256. " + (
        f"From {last.name} back to the recordings, each green link is one digest that both sides name."
        if whole
        else f"The chain from {last.name} ends early here: what made the rest was not given to this report."
    )
    items = "".join(_item(source, known) for source in chain)
    return page.section(
        "lineage",
        "Where the numbers come from",
        page.paragraph(lead, kind="lead"),
        f'<ol class="chain">{items}</ol>\n',
        f"<details><summary>Every artefact on this page</summary>{_table(known)}</details>\n",
        "<h3>Versions</h3>",
        _versions(known),
    )


def _verb(source: Source) -> str:
    return _VERBS.get(source.kind, source.kind)


def _item(source: Source, sources: Sequence[Source]) -> str:
    facts = [f"config {_short(source.provenance.get('config_digest'))}"]
    if source.provenance.get("seed") is not None:
        facts.append(f"seed {page.text(source.provenance['seed'])}")
    if source.body.get("digest"):
        facts.append(f"result {_short(source.body['digest'])}")
    lines = [_link_words(link) for link in links(source, sources) if not (source.kind == "store" and link.name == "sources")]
    if source.kind == "store":
        lines += _recording_words(source, sources)
    below = "".join(f'<div class="small">{line}</div>' for line in lines)
    return (
        f"<li><strong>{_verb(source)}</strong> <code>{page.text(source.name)}</code> "
        f'<span class="muted small">{", ".join(facts)}</span>{below}</li>\n'
    )


def _link_words(link: Link) -> str:
    name = f"{page.text(link.name)} {_short(link.digest)}"
    if link.maker is None:
        return f'<span class="muted">{name}: its maker is not on this page</span>'
    return f'{name} <span class="good-t">is what {_verb(link.maker)} made</span> (<code>{page.text(link.maker.name)}</code>)'


def _recording_words(store: Source, sources: Sequence[Source]) -> Iterator[str]:
    recordings: Mapping[str, str] = store.body["sources"]
    for other in sources:
        if other.kind == "collection" and recorded(store, other):
            count = f"{recorded(store, other)} of {len(recordings)} recordings"
            yield f"{count} bear the names of episodes of <code>{page.text(other.name)}</code>"
    shown = [f"{page.text(name)} {_short(digest)}" for name, digest in list(recordings.items())[:_SHOWN_RECORDINGS]]
    rest = f", and {len(recordings) - len(shown)} more in the store's index" if len(recordings) > len(shown) else ""
    yield f"<details><summary>{len(recordings)} recordings</summary>{'; '.join(shown)}{rest}</details>"


def _table(sources: Sequence[Source]) -> str:
    rows = []
    for source in sorted(sources, key=lambda source: ORDER.index(source.kind)):
        inputs = "<br>".join(f"{page.text(link.name)} {_short(link.digest)}" for link in links(source, sources)) or "–"
        seed = source.provenance.get("seed")
        rows.append(
            (
                _verb(source),
                f"<code>{page.text(source.name)}</code>",
                _short(source.body.get("digest")),
                _short(source.provenance.get("config_digest")),
                "<br>".join(_short(digest) for digest in produced(source)) or "–",
                inputs,
                "–" if seed is None else page.text(seed),
            )
        )
    return page.table(("step", "artefact", "report", "config", "weights or data", "inputs", "seed"), rows)


def _versions(sources: Sequence[Source]) -> str:
    found: dict[str, list[str]] = {}
    for source in sources:
        for library, version in (source.provenance.get("versions") or {}).items():
            if version not in found.setdefault(library, []):
                found[library].append(version)
    words = ", ".join(f"{library} {' and '.join(versions)}" for library, versions in sorted(found.items()))
    mixed = [library for library, versions in sorted(found.items()) if len(versions) > 1]
    warning = f"The steps ran with different versions of {', '.join(mixed)}." if mixed else ""
    return page.paragraph(words or "No artefact says with which versions it was made.") + page.paragraph(warning, kind="bad-t")


def _short(digest: Any) -> str:
    """The first ten figures of a digest, with the prefix that some have; the whole of it on hover."""
    return f'<code title="{page.text(digest)}">{page.text(str(digest)[: str(digest).find("-") + 11])}</code>' if digest else "–"
