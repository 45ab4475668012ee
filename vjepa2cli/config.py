"""The strict config tree: one root per step, presets by name, overrides, and the resolved tree that lies beside a result.

Flags are places (`--out`, `--device`); config is science. An unknown key is an error that names its nearest neighbour.
"""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from vjepa2cli.errors import ConfigError
from vjepa2cli.files import digest_json, write_text
from vjepa2cli.settings import STEPS, StepConfig
from vjepa2cli.settings.robot import RobotConfig, Unit

_Config = TypeVar("_Config", bound=StepConfig)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `3e-4` as a string; people write it as a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d[\d_]*)(?:\.\d*)?[eE][-+]?\d+$|^[-+]?(?:\d[\d_]*)?\.\d+(?:[eE][-+]?\d+)?$|^[-+]?\d+\.\d*$|^[-+]?\.(?:inf|nan)$"
    ),
    list("-+0123456789."),
)


def preset_names(step: str | None = None) -> list[str]:
    """Names of the shipped presets, of one step or of all, sorted."""
    folder = resources.files("vjepa2cli") / "presets"
    names = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return [name for name in names if step is None or _preset_tree(name).get("step") == step]


def load(source: str | Path, step_class: type[_Config], *, overrides: Sequence[str] = ()) -> _Config:
    """Load a preset by name or a YAML file by path, apply `a.b=value` overrides, and validate it as `step_class`.

    Raises ConfigError for an unknown preset, key or value; the message names the file, the key and what is allowed.
    """
    config = load_any(source, overrides=overrides)
    if not isinstance(config, step_class):
        raise ConfigError(
            f"{source}: is a config for step {config.step!r}, but {step_class.step_name()!r} is needed; "
            f"presets for it: {', '.join(preset_names(step_class.step_name())) or 'none'}"
        )
    return config


def load_any(source: str | Path, *, overrides: Sequence[str] = ()) -> StepConfig:
    """Load a config of whatever step its `step` key names; see `load`."""
    tree = _expand(str(source))
    for override in overrides:
        _apply_override(tree, override)
    return validate(tree, where=str(source))


def validate(tree: dict[str, Any], *, where: str) -> StepConfig:
    """Check a plain tree against the root that its `step` names; raises ConfigError with one line per fault."""
    step = tree.get("step")
    if not isinstance(step, str) or step not in STEPS:
        raise ConfigError(f"{where}: step: {step!r} is not one of {', '.join(STEPS)}; it says which command the config is for")
    try:
        return STEPS[step].model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(fault, STEPS[step], where) for fault in error.errors())) from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None


def dump(config: StepConfig) -> str:
    """The resolved tree as YAML, every default written out."""
    return yaml.safe_dump(to_tree(config), sort_keys=False)


def to_tree(config: StepConfig) -> dict[str, Any]:
    """The resolved tree as plain JSON types."""
    tree: dict[str, Any] = json.loads(config.model_dump_json())
    return tree


def digest(config: StepConfig) -> str:
    """SHA-256 of the resolved tree."""
    return digest_json(to_tree(config))


def save(config: StepConfig, path: Path) -> None:
    """Write the resolved tree beside a result, leaving the file alone if it says the same already (its mtime drives the DAG)."""
    text = dump(config)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def first_difference(old: StepConfig, new: StepConfig, *, allowed: Sequence[str] = ()) -> str | None:
    """The first key in which two resolved configs differ, as `a.b: old -> new`, or None, but for `allowed` keys and sections."""
    known = {*allowed}
    found = ((key, before, after) for key, before, after in differences(old, new) if not {key, key.split(".")[0]} & known)
    return next((f"{key}: {before!r} -> {after!r}" for key, before, after in found), None)


def differences(old: StepConfig, new: StepConfig) -> list[tuple[str, Any, Any]]:
    """Every key in which two resolved configs differ, with both values."""
    before, after = dict(_flatten(to_tree(old))), dict(_flatten(to_tree(new)))
    return [(key, before.get(key), after.get(key)) for key in before | after if before.get(key) != after.get(key)]


def value_of(config: StepConfig, key: str) -> Any:
    """The value of a key such as `beside.0.clip.crop`; raises ConfigError where there is none."""
    value: Any = to_tree(config)
    for part in key.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ConfigError(f"{key}: this {config.step} config has no such key") from None
    return value


def robot_names() -> list[str]:
    """Names of the shipped descriptions of robots, sorted."""
    folder = resources.files("vjepa2cli") / "presets" / "robots"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir())


def robot_text(name: str) -> str:
    """A shipped description of a robot as it is written, with its comments, to begin one of your own with."""
    return (resources.files("vjepa2cli") / "presets" / "robots" / f"{name}.yaml").read_text(encoding="utf-8")


def load_robot(source: str | Path) -> RobotConfig:
    """Load a description of a robot, by a shipped name or from a YAML file.

    Raises ConfigError for an unknown name, key or value; for a number without a unit it gives the line to add.
    """
    path, names = Path(source), robot_names()
    if str(source) in names:
        text = robot_text(str(source))
    elif path.is_file():
        text = _read(path)
    else:
        raise ConfigError(f"--robot {str(source)!r}: neither a file nor a shipped robot;{_suggestion(str(source), names)}")
    tree = _parse(text, where=str(source))
    try:
        return RobotConfig.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain_robot(fault, tree, str(source)) for fault in error.errors())) from None


def _explain_robot(fault: Any, tree: Any, where: str) -> str:
    if fault["type"] != "missing" or fault["loc"][-1] != "unit":
        return _explain(fault, RobotConfig, where)
    group = tree
    for part in fault["loc"][:-1]:
        group = group[part]
    name = ".".join(str(part) for part in fault["loc"][:-1])
    return (
        f"{where}: {name}: has no unit; add 'unit: rad' to {group.get('names', 'it')}, or whichever of "
        f"{', '.join(get_args(Unit))} it is"
    )


def about(preset: str) -> dict[str, Any]:
    """What is known of a shipped recipe besides its values: `released` checkpoint, `gpus` it was trained on, and `departures`.

    A post-training's has the `latents` that it is for: rows, columns and width. Empty for a preset of ours. A departure has a
    `key` of the config (or says `what` it is and what `ours` does), what the released `yaml`, `paper`, `code` or `checkpoint`
    have, and perhaps `why`.
    """
    file = resources.files("vjepa2cli") / "presets" / "about" / f"{preset}.yaml"
    if not file.is_file():
        return {}
    tree = _parse(file.read_text(encoding="utf-8"), where=f"about {preset}")
    own = tree.get("departures", [])
    shared = [item for name in tree.pop("include", []) for item in about(name)["departures"]]
    return tree | {
        "departures": own + [item for item in shared if item.get("key") not in {known.get("key", "") for known in own}]
    }


def recipe_of(source: str) -> str | None:
    """The shipped recipe that a preset or file is, or that its `base` leads to; None where there is none."""
    names = preset_names()
    while not (source in names and about(source)):
        base = _tree(source).get("base")
        if base is None:
            return None
        source = str(base)
    return source


def _flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        for index, value in enumerate(tree):
            yield from _flatten(value, f"{prefix}[{index}]")
    else:
        yield prefix, tree


def _preset_tree(name: str) -> dict[str, Any]:
    text = (resources.files("vjepa2cli") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    return _parse(text, where=f"preset {name}")


def _parse(text: str, *, where: str) -> dict[str, Any]:
    try:
        tree = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: holds no keys; a config is a YAML mapping that starts with 'step:'")
    return tree


def _expand(source: str, *, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a preset or file; its `base` key names what it differs from."""
    if source in above:
        raise ConfigError(f"{source}: builds on itself through base: {' -> '.join((*above, source))}; remove one of them")
    tree = _tree(source)
    base = tree.pop("base", None)
    return tree if base is None else _merge(_expand(str(base), above=(*above, source)), tree)


def _tree(source: str) -> dict[str, Any]:
    """A preset or file as it is."""
    path = Path(source)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise ConfigError(f"{source}: no such config file; 'vjepa2 config list' shows the presets")
        tree = _parse(_read(path), where=source)
    elif source in preset_names():
        tree = _preset_tree(source)
    else:
        raise ConfigError(f"{source!r} is neither a file nor a preset;{_suggestion(source, preset_names())}")
    return tree


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not a text file; a config is YAML in UTF-8") from None


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override!r}: write it as key=value, for example --set optimizer.lr=3e-4")
    *parents, leaf = key.strip().split(".")
    node = tree
    for name in parents:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override!r}: {name} holds a value, not a section")
    try:
        node[leaf] = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise ConfigError(
            f"--set {override!r}: {text!r} is not a YAML value; quote the whole option and close its brackets"
        ) from None


def _explain(fault: Any, root: type[BaseModel], where: str) -> str:
    *parents, leaf = fault["loc"] or ("",)
    name = ".".join(str(part) for part in (*parents, leaf))
    if fault["type"] == "extra_forbidden":
        return f"{where}: {name}: unknown key;{_suggestion(str(leaf), _keys_at(root, parents))}"
    if fault["type"] == "missing":
        return f"{where}: {name}: is required"
    if fault["type"] == "value_error" and isinstance(fault["input"], dict):  # of keys that do not go together
        return f"{where}: {f'{name}: ' if name else ''}{fault['msg'].removeprefix('Value error, ')}"
    return f"{where}: {name}: {fault['input']!r} is refused: {fault['msg']}"


def _suggestion(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" did you mean {near[0]!r}?" if near else f" known: {', '.join(known)}"


def _keys_at(root: type[BaseModel], parents: Sequence[int | str]) -> list[str]:
    section: type[BaseModel] | None = root
    for name in parents:
        if section is not None and isinstance(name, str) and name in section.model_fields:
            section = _section_of(section.model_fields[name].annotation)
    return list(section.model_fields) if section is not None else []


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple, list, dict):
        return next((found for argument in get_args(annotation) if (found := _section_of(argument))), None)
    return None
