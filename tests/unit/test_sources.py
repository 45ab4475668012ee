"""Finding sources: each once, under names that can move, by folders, patterns and tables."""

from pathlib import Path

import pytest

from vjepa2cli.errors import InputError
from vjepa2cli.recordings.places import Wanted
from vjepa2cli.recordings.sources import Source, find_sources

WANTED = Wanted({".mp4", ".webm"}, {".jpg", ".png"}, ("exterior_1",))


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def find(*given: Path, labels: Path | None = None) -> list[Source]:
    return find_sources(list(given), WANTED, labels=labels).sources


def names(*given: Path) -> list[str]:
    return [source.name for source in find(*given)]


def shares(sources: list[Source]) -> dict[str, tuple[float, int]]:
    """Weight of each source's group, and how many share it."""
    found = [(source.name, part.share) for source in sources for part in source.parts]
    sizes = [share.group for _, share in found if share is not None]
    return {name: (share.weight, sizes.count(share.group)) for name, share in found if share is not None}


def test_patterns_match_at_any_depth_and_name_what_lies_below_their_folder(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.mp4", "x/b.mp4", "x/y/c.webm", "x/d.txt", "x/.hidden/e.mp4")
    assert names(tmp_path / "in/**/*.mp4") == ["a.mp4", "x/b.mp4"]
    assert names(tmp_path / "in/**") == ["a.mp4", "x/b.mp4", "x/y/c.webm"]
    assert names(tmp_path / "in/x/*") == ["b.mp4", "y/c.webm"]
    assert names(tmp_path / "in/*/[bd]*") == ["x/b.mp4"]
    assert names(tmp_path / "in/x/*.txt") == ["d.txt"]
    with pytest.raises(InputError, match=r"no video, image or recording matches this pattern"):
        names(tmp_path / "in/*.avi")


def test_file_whose_name_looks_like_a_pattern_is_taken_by_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].mp4", "a1.mp4")
    assert names(tmp_path / "a[1].mp4") == ["a[1].mp4"]


def test_a_file_that_is_named_twice_comes_once(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.mp4", "b.mp4")
    assert names(tmp_path / "in", tmp_path / "in/a.mp4", tmp_path / "in/*.mp4") == ["a.mp4", "b.mp4"]


def test_images_are_taken_from_folders_that_hold_no_video_and_else_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "pictures/cat/1.jpg", "pictures/2.png", "mixed/a.mp4", "mixed/poster.jpg")
    assert [(source.name, source.is_image) for source in find(tmp_path / "pictures")] == [("2.png", True), ("cat/1.jpg", True)]
    found = find_sources([tmp_path / "mixed"], WANTED)
    assert [source.name for source in found.sources] == ["a.mp4"]
    assert found.images_passed_over == {str(tmp_path / "mixed"): 1}
    assert [source.name for source in find(tmp_path / "mixed", tmp_path / "mixed/*.jpg")] == ["a.mp4", "poster.jpg"]


def test_a_table_names_stretches_folders_patterns_and_tables(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "run/1.mp4", "run/2.mp4", "walk/x/3.webm", "pictures/4.jpg", "far/5.mp4")
    (tmp_path / "far/list.csv").write_text("path,start,end\n5.mp4,1,2\n5.mp4,1.5,3\n5.mp4,7,8\n")
    (tmp_path / "all.csv").write_text(
        "path,label,start,end\na.mp4,,0.5,2\nrun,running,,\nwalk/**/*.webm,walking,,\npictures,,,\nfar/list.csv,,,\n"
    )
    sources = {source.name: source for source in find(tmp_path / "all.csv")}
    assert sorted(sources) == ["5.mp4", "a.mp4", "pictures/4.jpg", "run/1.mp4", "run/2.mp4", "walk/x/3.webm"]
    assert [str(part.span) for part in sources["a.mp4"].parts] == ["0.5s-2s"]
    assert [str(part.span) for part in sources["5.mp4"].parts] == ["1s-3s", "7s-8s"]
    assert sources["pictures/4.jpg"].is_image
    labels = {
        name: [item.label for items in (source.windows or {}).values() for item in items] for name, source in sources.items()
    }
    assert (labels["run/1.mp4"], labels["walk/x/3.webm"], labels["a.mp4"]) == (["running"], ["walking"], [])


def test_a_rows_weight_is_shared_by_all_that_it_stands_for(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "k/1.mp4", "k/2.mp4", "k/3.mp4", "s/1.webm", "s/2.webm")
    (tmp_path / "s/list.csv").write_text("s/1.webm 0\ns/2.webm 5\n")
    (tmp_path / "mix.csv").write_text("path,weight\na.mp4,0.25\nk,0.6\ns/list.csv,0.15\n")
    assert shares(find(tmp_path / "mix.csv")) == {
        "a.mp4": (0.25, 1),
        "k/1.mp4": (0.6, 3),
        "k/2.mp4": (0.6, 3),
        "k/3.mp4": (0.6, 3),
        "s/1.webm": (0.15, 2),
        "s/2.webm": (0.15, 2),
    }


def test_weights_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "k/1.mp4")
    mix = tmp_path / "mix.csv"
    mix.write_text("path,weight\na.mp4,1\n")
    with pytest.raises(InputError, match=r"^1\.mp4: has no weight, and other sources have one"):
        find(mix, tmp_path / "k")
    mix.write_text("path,weight,start,end\na.mp4,1,0,2\na.mp4,2,1,3\n")
    with pytest.raises(InputError, match=r"line 3: rows of a\.mp4 overlap or touch but differ in weight"):
        find(mix)
    mix.write_text("path,weight,start,end\na.mp4,1,0,2\na.mp4,2,5,6\n")
    assert [part.share.weight for part in find(mix)[0].parts if part.share] == [1, 2]
    (tmp_path / "outer.csv").write_text("path,weight\nmix.csv,1\n")
    with pytest.raises(InputError, match=r"mix\.csv: has weights of its own"):
        find(tmp_path / "outer.csv")
    mix.write_text("path,start,end\nk,1,2\n")
    with pytest.raises(InputError, match="line 2: k stands for several videos, which have no start and end"):
        find(mix)
    mix.write_text("path,label\nk,a\nk,b\n")
    with pytest.raises(InputError, match="line 3: k stands for several videos and is listed twice"):
        find(mix)


def test_a_video_in_a_folder_is_stored_whole_though_a_table_names_stretches(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.mp4")
    (tmp_path / "t.csv").write_text("path,label,start,end\nin/a.mp4,up,1,2\n")
    (source,) = find(tmp_path / "t.csv", tmp_path / "in")
    assert (source.name, [part.span.is_whole for part in source.parts]) == ("a.mp4", [True])
    assert source.windows is not None
    assert [item.label for item in source.windows["a.mp4"]] == ["up"]
