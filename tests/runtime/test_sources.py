"""Files, folders and globs become pictures and result names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cn2.runtime.sources import Source, find_sources, result_paths

MakeFiles = Callable[..., Path]


@pytest.fixture
def make_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeFiles:
    """Makes empty files below a fresh folder, which becomes the current one."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> Path:
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()
        return tmp_path

    return make


def names_of(*words: str, skip: Path | None = None) -> list[str]:
    sources, problems = find_sources(words, skip)
    assert problems == []
    return [str(source.path) for source in sources]


def test_a_folder_gives_its_pictures_and_those_of_its_folders(make_files: MakeFiles) -> None:
    make_files("p/b.jpg", "p/A.JPG", "p/x/c.png", "p/notes.txt", "p/.hidden.jpg", "p/.git/d.jpg")
    assert names_of("p") == ["p/A.JPG", "p/b.jpg", "p/x/c.png"]
    sources, _ = find_sources(["p"])
    assert [str(source.name) for source in sources] == ["A.JPG", "b.jpg", "x/c.png"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("p/*.jpg", ["p/a.jpg", "p/b.jpg"]),
        ("p/?.txt", ["p/n.txt"]),  # a glob counts as if typed: the file is tried
        ("p/**/*.png", ["p/x/c.png", "p/x/y/d.png"]),
        ("p/x*", ["p/x/c.png", "p/x/y/d.png"]),  # a folder among the matches is walked
        ("p/[ab].jpg", ["p/a.jpg", "p/b.jpg"]),
    ],
)
def test_globs(pattern: str, expected: list[str], make_files: MakeFiles) -> None:
    make_files("p/b.jpg", "p/a.jpg", "p/n.txt", "p/x/c.png", "p/x/y/d.png")
    assert names_of(pattern) == expected


def test_a_file_whose_name_looks_like_a_glob_is_that_file(make_files: MakeFiles) -> None:
    make_files("a[1].jpg", "a1.jpg")
    assert names_of("a[1].jpg") == ["a[1].jpg"]


def test_words_keep_their_order_and_no_file_comes_twice(make_files: MakeFiles) -> None:
    make_files("p/a.jpg", "p/b.jpg", "q.jpg")
    os.symlink("q.jpg", "same.jpg")
    assert names_of("q.jpg", "p", "p/a.jpg", "p/*.jpg", "same.jpg", "./q.jpg") == [
        "q.jpg",
        "p/a.jpg",
        "p/b.jpg",
    ]


def test_a_missing_file_is_kept_for_the_reader_to_name(make_files: MakeFiles) -> None:
    make_files()
    assert names_of("gone.jpg") == ["gone.jpg"]


def test_words_without_a_picture_are_told(make_files: MakeFiles) -> None:
    make_files("empty/notes.txt", "a.jpg")
    sources, problems = find_sources(["*.png", "empty", "a.jpg"])
    assert [str(source.path) for source in sources] == ["a.jpg"]
    assert [word for word, _ in problems] == ["*.png", "empty"]
    assert problems[0][1].startswith("no file matches")
    assert problems[1][1].startswith("no picture in this folder")


def test_the_output_folder_is_not_searched(make_files: MakeFiles) -> None:
    make_files("p/a.jpg", "p/out/a.jpg")
    assert names_of("p", skip=Path("p/out")) == ["p/a.jpg"]
    assert names_of("p/out", skip=Path("p/out")) == ["p/out/a.jpg"]  # unless asked for by name


def named(*paths: str) -> list[Source]:
    return [Source(Path(path), Path(Path(path).name)) for path in paths]


def results_of(sources: list[Source], out: str) -> list[str]:
    return [str(path) for path in result_paths(sources, Path(out))]


def test_results_keep_names_and_sub_folders(make_files: MakeFiles) -> None:
    make_files("p/a.jpg", "p/x/a.jpg")
    sources, _ = find_sources(["p"])
    assert results_of(sources, "out") == ["out/a.jpg", "out/x/a.jpg"]


def test_equal_names_are_kept_apart(make_files: MakeFiles) -> None:
    make_files()
    sources = named("p/a.jpg", "q/a.jpg", "r/A.jpg", "r/a-2.jpg")
    assert results_of(sources, "out") == [
        "out/a.jpg",
        "out/a-2.jpg",
        "out/A-3.jpg",
        "out/a-2-2.jpg",
    ]


def test_no_source_is_overwritten(make_files: MakeFiles) -> None:
    make_files("p/a.jpg", "p/a-2.jpg", "p/b.png")
    sources = named("p/a.jpg", "p/a-2.jpg", "p/b.png")
    results = results_of(sources, "p")
    assert results == ["p/a-3.jpg", "p/a-2-2.jpg", "p/b-2.png"]
    assert not set(results) & {str(source.path) for source in sources}


def test_a_linked_output_folder_is_seen_through(make_files: MakeFiles) -> None:
    make_files("p/a.jpg")
    os.symlink("p", "link")
    assert results_of(named("p/a.jpg"), "link") == ["link/a-2.jpg"]


@pytest.mark.parametrize(
    ("name", "result"),
    [("a.gif", "out/a.gif.png"), ("a", "out/a.png"), ("a.JPEG", "out/a.JPEG")],
)
def test_what_cannot_be_written_becomes_png(name: str, result: str, make_files: MakeFiles) -> None:
    make_files()
    assert results_of(named(name), "out") == [result]
