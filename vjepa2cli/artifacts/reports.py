"""Reports: JSON with a schema version, whole or absent; figures are drawn from these alone."""

from pathlib import Path
from typing import Any

from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import digest_json, read_json, write_json

SCHEMA_VERSION = 1


def write_report(
    path: Path, kind: str, body: dict[str, Any], *, provenance: dict[str, Any], timing: dict[str, float] | None = None
) -> Path:
    """Write a report of `kind`; `timing` (seconds) is kept apart, so that equal results have equal digests."""
    content = {"schema": f"vjepa2cli.{kind}/{SCHEMA_VERSION}", "kind": kind, "provenance": provenance, **body}
    write_json(path, content | {"digest": digest_json(content), "timing": timing or {}})
    return path


def read_report(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Read a report, of `kind` where one is named; raises ArtifactError for another kind, a newer schema or a changed content."""
    report = read_json(path)
    found, _, schema = str(report.get("schema", "")).removeprefix("vjepa2cli.").partition("/")
    if not schema:
        raise ArtifactError(f"{path}: is no vjepa2cli report; it lacks the key 'schema'")
    if schema != str(SCHEMA_VERSION):
        raise ArtifactError(f"{path}: schema version {schema} is not {SCHEMA_VERSION}; use the vjepa2cli that wrote it")
    if kind is not None and found != kind:
        raise ArtifactError(f"{path}: is a report of kind {found!r}, but {kind!r} is needed")
    content = {key: value for key, value in report.items() if key not in ("digest", "timing")}
    if digest_json(content) != report.get("digest"):
        raise ArtifactError(f"{path}: its content does not match its digest; it was edited or damaged, run its step again")
    return report
