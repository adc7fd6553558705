"""Files, folders and globs become pictures and result names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cn2.runtime.errors import OutputError
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


def test_words_keep_their_order_and_no_name_comes_twice(make_files: MakeFiles) -> None:
    make_files("p/a.jpg", "p/b.jpg", "q.jpg")
    os.symlink("p", "same")  # a folder under a second name: the same pictures
    assert names_of("q.jpg", "p", "p/a.jpg", "p/*.jpg", "same/a.jpg", "./q.jpg") == [
        "q.jpg",
        "p/a.jpg",
        "p/b.jpg",
    ]


def test_a_link_and_its_target_are_two_pictures(make_files: MakeFiles) -> None:
    make_files("p/orig.jpg")
    os.symlink("orig.jpg", "p/a.jpg")
    assert names_of("p", "p/a.jpg") == ["p/a.jpg", "p/orig.jpg"]


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


@pytest.mark.parametrize(
    ("words", "out", "folder"),
    [
        (["p/a.jpg"], "p", "p"),
        (["p"], "p", "p"),
        (["p/x"], "p/x/../x", "p/x/../x"),
        (["p/a.jpg"], "link", "link"),  # a second name of p
        (["link/a.jpg"], "p", "p"),
        (["linked.jpg"], "p", "p"),  # the original lies there
        (["linked.jpg"], ".", "."),  # the link lies there
        (["p/x", "q"], "p", "p/x"),  # q/x/c.jpg would be p/x/c.jpg
        (["q"], "o", "o/x"),  # o/x is q/x
    ],
)
def test_a_folder_of_sources_takes_no_results(
    words: list[str], out: str, folder: str, make_files: MakeFiles
) -> None:
    make_files("p/a.jpg", "p/x/b.jpg", "q/x/c.jpg", "o/notes.txt")
    os.symlink("p", "link")
    os.symlink("p/a.jpg", "linked.jpg")
    os.symlink("../q/x", "o/x")
    sources, _ = find_sources(words)
    with pytest.raises(OutputError, match="that holds the source") as caught:
        result_paths(sources, Path(out))
    message = str(caught.value)
    assert message.startswith(f"{folder}: expected a folder for results alone")
    assert message.endswith("; choose another")
    assert "\n" not in message


def test_other_folders_take_results_again_and_again(make_files: MakeFiles) -> None:
    make_files("p/a.jpg", "p/x/a.jpg", "p/out/a.jpg", "p/out/x/a.jpg")
    for _ in range(2):  # what lies there does not change the names
        sources, _ = find_sources(["p"], skip=Path("p/out"))
        assert results_of(sources, "p/out") == ["p/out/a.jpg", "p/out/x/a.jpg"]
    assert results_of(named("gone.jpg"), ".") == ["gone.jpg"]  # nothing there to lose


@pytest.mark.parametrize(
    ("name", "result"),
    [("a.gif", "out/a.gif.png"), ("a", "out/a.png"), ("a.JPEG", "out/a.JPEG")],
)
def test_what_cannot_be_written_becomes_png(name: str, result: str, make_files: MakeFiles) -> None:
    make_files()
    assert results_of(named(name), "out") == [result]
