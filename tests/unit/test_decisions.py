"""What is decided over all entries: copies, what is dropped, the split and the weights."""

import base64
from typing import Any

import numpy as np

from vjepa2cli.data.looks import LooksMeter
from vjepa2cli.ingestion.copies import find_copies
from vjepa2cli.ingestion.decisions import decide
from vjepa2cli.settings import DropConfig, IngestConfig


def signature(seed: int, *, noise: int = 0, box: int | None = None) -> str:
    """Eight scenes with noise of their own; with a `box` one scene, in which it moves across a row of its own."""
    scenes = np.random.default_rng(seed).integers(20, 230, (8, 16, 17, 3)).repeat(4, 1).repeat(4, 2)
    meter = LooksMeter()
    for index, scene in enumerate(scenes):
        if box is not None:
            scene = scenes[0].copy()
            scene[8 * box : 8 * box + 4, 8 * index : 8 * index + 4] = 255
        meter.add(float(index), np.asarray(scene + noise, np.uint8))
    return meter.looks().signature


def entry(source: str, *, seed: int | None = None, **changes: Any) -> dict[str, Any]:
    number = sum(source.encode()) if seed is None else seed
    attributes = {
        "source": source,
        "source_digest": source,
        "pixels_digest": source,
        "num_frames": 50,
        "seconds": 10.0,
        "episode": source,
        "still": False,
        "robot": None,
        "windows": [],
        "black": 0.0,
        "frozen": 0.0,
        "signature": signature(number),
        "share": None,
    }
    return attributes | changes


def entries(*items: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["source"]: item for item in items}


def config(**drop: Any) -> IngestConfig:
    return IngestConfig(drop=DropConfig(**drop), val_fraction=0.25)


def test_the_first_name_stands_for_its_copies_and_a_labelled_one_before_all() -> None:
    found = entries(entry("a", seed=1), entry("b", seed=1), entry("c", seed=2), entry("d", seed=1))
    assert find_copies(found).certain == {"b": "a", "d": "a"}
    found["d"]["windows"] = [{"start": 0, "num_frames": 4, "label": "up"}]
    assert find_copies(found).certain == {"a": "d", "b": "d"}


def test_copies_differ_little_in_colour_and_length_and_are_of_one_kind() -> None:
    found = entries(
        entry("a", seed=1),
        entry("brighter", seed=1, signature=signature(1, noise=4)),
        entry("longer", seed=1, seconds=10.15),
        entry("still", seed=1, still=True),
        entry("too-bright", seed=1, signature=signature(1, noise=20)),
        entry("too-long", seed=1, seconds=11.0),
    )
    assert find_copies(found).certain == {"brighter": "a", "longer": "a"}


def test_takes_of_one_camera_are_said_to_look_alike_and_never_dropped() -> None:
    found = entries(*(entry(f"t{number}", seed=1, signature=signature(1, box=number)) for number in range(3)))
    found["t3"] = entry("t3", seed=1, signature=found["t1"]["signature"])
    said = {"t1": ["looks like t0, but differs in places"], "t2": ["looks like t0, but differs in places"]}
    kept = decide(found, config(duplicates=True))
    assert {key: item["findings"] for key, item in kept.listed.items()} == {"t0": [], **said}
    assert kept.dropped == {"t3": "dropped: looks the same as t1"}


def test_looks_of_an_earlier_version_share_a_side_of_the_split_and_are_not_dropped() -> None:
    before = base64.b64encode(base64.b64decode(signature(1))[:280]).decode()
    found = entries(
        entry("a", seed=1, signature=before),
        entry("b", seed=1),
        entry("c", seed=1, signature=before, pixels_digest="a"),
        *(entry(f"o{number}", seed=2 + number) for number in range(9)),
    )
    for split_seed in range(4):
        kept = decide(found, config(duplicates=True).model_copy(update={"split_seed": split_seed}))
        assert kept.dropped == {"c": "dropped: the same frames as a"}
        assert kept.listed["a"]["split"] == kept.listed["b"]["split"]
    assert kept.listed["b"]["findings"] == ["looks like a; whether it differs in places only ingest with --replace can tell"]


def test_what_is_found_is_said_and_dropped_on_request_alone() -> None:
    found = entries(
        entry("a", seed=1),
        entry("b", seed=1, source_digest="a", pixels_digest="a"),
        entry("c", seed=1, pixels_digest="a"),
        entry("d", seed=1),
        entry("e", black=0.95, frozen=1.0),
        entry("f", frozen=0.93),
        entry("g", seconds=0.8),
        entry("h", seconds=0.0, still=True),
    )
    kept = decide(found, config())
    assert kept.dropped == {}
    assert {key: item["findings"] for key, item in kept.listed.items() if item["findings"]} == {
        "b": ["the same file as a"],
        "c": ["the same frames as a"],
        "d": ["looks the same as a"],
        "e": ["black for 95% of its time"],
        "f": ["frozen for 93% of its time"],
    }
    assert set(decide(found, config(duplicates=True)).dropped) == {"b", "c", "d"}
    assert decide(found, config(black=True)).dropped == {"e": "dropped: black for 95% of its time"}
    assert set(decide(found, config(frozen=True)).dropped) == {"f"}
    assert decide(found, config(shorter_than=1.0)).dropped == {"g": "dropped: 0.80 s, shorter than 1 s"}


def test_copies_never_lie_on_both_sides_of_the_split() -> None:
    found = entries(*(entry(f"{number}{copy}", seed=number) for number in range(20) for copy in "xyz"))
    found["0y"]["episode"] = "1x"
    splits = {key: item["split"] for key, item in decide(found, config()).listed.items()}
    assert all(len({splits[f"{number}{copy}"] for copy in "xyz"}) == 1 for number in range(20))
    assert splits["0x"] == splits["1x"]
    # A quarter of nineteen groups, each of three but the one of six.
    assert 15 <= list(splits.values()).count("val") <= 18


def test_each_kind_has_both_sides_of_the_split() -> None:
    found = entries(
        *(entry(f"v{number}", seed=number) for number in range(4)),
        *(entry(f"i{number}", seed=10 + number, still=True) for number in range(4)),
        *(entry(f"r{number}", seed=20 + number, robot="arm") for number in range(4)),
    )
    listed = decide(found, config()).listed
    for kind in "vir":
        assert sorted(listed[f"{kind}{number}"]["split"] for number in range(4)) == ["train", "train", "train", "val"]


def test_a_groups_weight_is_spread_evenly_on_each_side_of_the_split() -> None:
    shares = {"k": {"group": "k", "weight": 0.6}, "s": {"group": "s", "weight": 0.4}}
    found = entries(
        *(entry(f"{kind}{number}", seed=ord(kind) + number, share=shares[kind]) for kind in "ks" for number in range(8))
    )
    found["k0"]["black"] = 1.0
    listed = decide(found, config(black=True)).listed
    for side in ("train", "val"):
        sums = {
            kind: sum(item["weight"] for key, item in listed.items() if item["split"] == side and key[0] == kind) for kind in "ks"
        }
        present = {key[0] for key, item in listed.items() if item["split"] == side}
        assert all(abs(sums[kind] - shares[kind]["weight"]) < 1e-12 for kind in present)
    assert "k0" not in listed
    assert all(item["weight"] is None for item in decide(entries(entry("a")), config()).listed.values())


def test_a_row_of_a_mixture_is_never_all_held_out() -> None:
    long = entry("long", share={"group": "l", "weight": 0.5})
    found = entries(long, *(entry(f"s{number}", share={"group": "s", "weight": 0.5}) for number in range(9)))
    for split_seed in range(12):
        kept = decide(found, config().model_copy(update={"split_seed": split_seed}))
        sides = {key: item["split"] for key, item in kept.listed.items()}
        assert sides["long"] == "train"
        assert list(sides.values()).count("val") == 2
        (remark,) = kept.remarks
        assert remark["source"] == "long"
        assert remark["note"].endswith("weight 0.5, is all trained on, and nothing of it held out")


def test_a_row_of_a_mixture_that_is_never_drawn_is_said() -> None:
    shares = [{"group": str(row), "weight": 0.5} for row in range(2)]
    found = entries(entry("a", share=shares[0], black=1.0), entry("b", share=shares[1]), entry("c", share=shares[1]))
    (remark,) = decide(found, config(black=True)).remarks
    assert remark == {
        "source": "a",
        "note": "its row of the mixture, of weight 0.5, is never drawn in training: all it names is dropped",
    }
    everything = decide(found, IngestConfig(val_fraction=1.0))
    assert {item["split"] for item in everything.listed.values()} == {"val"}
    assert [remark["source"] for remark in everything.remarks] == ["a", "b"]
