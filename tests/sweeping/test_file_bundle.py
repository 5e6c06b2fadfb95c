from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_compress.errors import RecipeError, WeightsError
from mlflow_compress.records import Variant
from mlflow_compress.sweeping import file_bundle
from mlflow_compress.sweeping.file_bundle import File, Parcel


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "parcels"


def variant(folder: Path, source: str = "model.py", **fields: Any) -> Variant:
    return Variant("m", "original", "t", "python", source, folder=str(folder), **fields)


def archive(needs: Parcel) -> list[bytes]:
    file = io.BytesIO()
    file_bundle.pack(needs, file)
    return [file.getvalue()[start : start + 1000] for start in range(0, len(file.getvalue()), 1000)]


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_code_goes_with_what_it_imports_and_mentions(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "recipes",
        model_dot_py='import layers\nfrom blocks import one\nopen("net/weights.txt")\nmodel = 1 # logs',
        layers_dot_py="",
        blocks__one_dot_py="",
        net__weights_dot_txt="w",
        net__other_dot_txt="o",
        logs__huge_dot_txt="h",
        notes_dot_txt="n",
    )
    (folder / "blocks" / "__init__.py").touch()
    needs = file_bundle.contents(variant(folder))
    assert needs is not None
    expected = {"0/model.py", "0/layers.py", "0/blocks/__init__.py", "0/blocks/one.py", "0/net/weights.txt"}
    assert set(needs.files) == expected


def test_a_table_goes_with_the_pictures_that_it_names(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "data",
        table_dot_csv="image,label\nimages/a.png,cat\nimages/b.png,dog\n/etc/hosts,x\n../secret,y\n",
        images__a_dot_png="a",
        images__b_dot_png="b",
    )
    write(tmp_path, secret="s")
    needs = file_bundle.contents(variant(tmp_path / "recipes", "org/model", data=f"{folder / 'table.csv'}:text=image"))
    assert needs is not None
    assert {Path(file.path).relative_to(folder).as_posix() for file in needs.files.values()} == {
        "table.csv",
        "images/a.png",
        "images/b.png",
    }


def test_a_variant_finds_its_paths_on_another_machine(tmp_path: Path) -> None:
    folder = write(tmp_path / "recipes", model_dot_py="", reviews_dot_csv="text,label\na,b\n", mine_dot_py="")
    write(tmp_path / "w", weights_dot_bin="1")
    original = variant(
        folder,
        weights=str(tmp_path / "w"),
        data="reviews.csv:text=text,calibration=reviews.csv",
        metrics=("accuracy", "./mine.py:key=x", str(folder / "mine.py")),
    )
    needs = file_bundle.contents(original)
    assert needs is not None
    assert file_bundle.find(needs) == file_bundle.HERE
    assert file_bundle.moved(original, needs, file_bundle.HERE) == original
    location = file_bundle.unpack(needs, archive(needs))
    moved = file_bundle.moved(original, needs, location)
    assert Path(moved.folder, moved.source).read_text() == ""
    assert Path(moved.weights, "weights.bin").read_text() == "1"
    assert Path(moved.folder, "reviews.csv").is_file()
    assert moved.data == original.data
    assert moved.metrics[:2] == ("accuracy", "./mine.py:key=x")
    for path in (moved.folder, moved.weights):
        assert Path(path).is_relative_to(location)


def test_a_task_of_lm_eval_goes_with_its_data_and_its_functions(tmp_path: Path) -> None:
    folder = write(tmp_path / "recipes", model_dot_py="")
    (folder / "tasks" / "data").mkdir(parents=True)
    (folder / "tasks" / "data" / "a.jsonl").write_text("{}")
    (folder / "tasks" / "readers.py").write_text("")
    (folder / "tasks" / "ours.yaml").write_text(
        "dataset_kwargs: {data_files: {test: data/a.jsonl}}\nprocess_docs: !function readers.read\n"
    )
    original = variant(folder, metrics=("lm_eval:arc_easy", "lm_eval:./tasks/ours.yaml:limit=5"))
    needs = file_bundle.contents(original)
    assert needs is not None
    moved = file_bundle.moved(original, needs, file_bundle.unpack(needs, archive(needs)))
    assert moved.metrics == original.metrics
    for name in ("ours.yaml", "readers.py", "data/a.jsonl"):
        assert Path(moved.folder, "tasks", name).is_file(), name


def test_what_a_hub_or_a_package_has_is_not_packed(tmp_path: Path) -> None:
    write(tmp_path, model_dot_py="")
    for source in ("org/name", "package:numpy", "models:/x/1", "~nobody-of-that-name/x", "a\0b", "x" * 5000):
        assert file_bundle.contents(variant(tmp_path, source)) is None


def test_it_is_unpacked_once_and_found_by_what_is_in_it(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "a", model_dot_py="one")
    needs = file_bundle.contents(variant(folder))
    assert needs is not None
    chunks = archive(needs)
    (folder / "model.py").write_text("two, and longer")
    assert file_bundle.find(needs) == ""
    location = file_bundle.unpack(needs, chunks)
    assert file_bundle.find(needs) == location

    def unread() -> Any:
        raise AssertionError
        yield b""

    assert file_bundle.unpack(needs, unread()) == location
    same_content = file_bundle.contents(variant(write(tmp_path / "b", model_dot_py="one")))
    assert same_content is not None
    assert same_content.digest == needs.digest
    changed = file_bundle.contents(variant(folder))
    assert changed is not None
    assert changed.digest != needs.digest
    old = time.time() - 30 * 86400
    os.utime(location, (old, old))
    file_bundle.unpack(changed, archive(changed))
    assert not Path(location).exists()  # nobody used it for weeks
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [changed.digest]


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/mlflow-compress-out.txt", "0/../../out.txt"])
def test_an_archive_can_not_write_outside(tmp_path: Path, cache: Path, name: str) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as hostile:
        entry = tarfile.TarInfo(name)
        entry.size = 3
        hostile.addfile(entry, io.BytesIO(b"bad"))
    with pytest.raises(OSError, match="archive"):
        file_bundle.unpack(Parcel(("/",), {name: File("/x", 3, 0, "")}), [file.getvalue()])
    assert not any(path.name == "out.txt" for path in tmp_path.rglob("*"))
    assert not Path("/tmp/mlflow-compress-out.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_an_archive_can_not_link_outside(tmp_path: Path, kind: bytes) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as hostile:
        entry = tarfile.TarInfo("0/link")
        entry.type, entry.linkname = kind, "../../../../etc/passwd"
        hostile.addfile(entry)
    with pytest.raises(OSError, match="archive"):
        file_bundle.unpack(Parcel(("/",), {"0/link": File("/x", 3, 0, "")}), [file.getvalue()])


def test_an_archive_of_other_files_or_none_is_refused(tmp_path: Path, cache: Path) -> None:
    needs = file_bundle.contents(variant(write(tmp_path / "a", model_dot_py="one")))
    of_other_files = file_bundle.contents(variant(write(tmp_path / "b", model_dot_py="three")))
    assert needs is not None
    assert of_other_files is not None
    for chunks in (archive(of_other_files), [], [b"no archive"]):
        with pytest.raises(OSError, match="archive"):
            file_bundle.unpack(needs, chunks)
        assert file_bundle.find(replace(needs, files={})) != ""
        assert not (cache / needs.digest).exists()


def test_what_can_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "a", model_dot_py="one")

    def refuse(path: Path) -> File:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(file_bundle, "_described", refuse)
    with pytest.raises(RecipeError, match="can't be sent to other machines"):
        file_bundle.contents(variant(folder))


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)


@settings(max_examples=25, deadline=None)
@given(files=st.dictionaries(names, st.binary(max_size=3000), min_size=1, max_size=5), folder=names)
def test_any_folder_comes_out_as_it_went_in(files: dict[str, bytes], folder: str) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESS_CACHE", name + "/cache")
        weights = Path(name, "outside", folder)
        weights.mkdir(parents=True)
        for file_name, content in files.items():
            (weights / file_name).write_bytes(content)
        original = variant(Path(name, "recipes"), "org/model", weights=str(weights))
        needs = file_bundle.contents(original)
        assert needs is not None
        assert Parcel.from_json({"roots": needs.roots, "files": {k: vars(v) for k, v in needs.files.items()}}) == needs
        moved = file_bundle.moved(original, needs, file_bundle.unpack(needs, archive(needs)))
        assert {path.name: path.read_bytes() for path in Path(moved.weights).iterdir()} == files


def test_links_of_an_mlflow_model_are_not_sent(tmp_path: Path) -> None:
    folder = write(tmp_path / "recipes", model__MLmodel="flavors: {}", model__weights="w")
    (tmp_path / "secret").write_text("of this machine")
    (folder / "model" / "notes").symlink_to(tmp_path / "secret")
    with pytest.raises(WeightsError, match=r"notes in .* is a link to a file elsewhere"):
        file_bundle.contents(variant(folder, "model"))
    (folder / "model" / "notes").unlink()
    needs = file_bundle.contents(variant(folder, "model"))
    assert needs is not None
    assert set(needs.files) == {"0/model/MLmodel", "0/model/weights"}


def test_what_lies_too_deep_or_is_too_much_is_said_before_it_is_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / "weights" / Path(*["d"] * 150)
    deep.mkdir(parents=True)
    (tmp_path / "model.py").write_text("")
    with pytest.raises(RecipeError, match=r"can't be sent to other machines: .*more than 100 nested folders"):
        file_bundle.contents(variant(tmp_path, weights="weights"))
    monkeypatch.setattr(file_bundle, "MOST_FILES", 3)
    write(tmp_path / "data", **{f"{number}.txt": "x" for number in range(4)})
    with pytest.raises(RecipeError, match="has more than 3 files"):
        file_bundle.contents(variant(tmp_path, weights="data"))


def test_code_goes_with_what_its_modules_need_and_with_small_folders_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(
        tmp_path / "recipes",
        model_dot_py='from deep.inner import x\nPath("data").iterdir()\n"large", "/etc/passwd", "../up.txt"',
        deep__inner_dot_py='open("words.txt")',
        words_dot_txt="w",
        data__one_dot_txt="1",
        large__huge_dot_txt="h" * 100,
        _dot_env="geheim",
    )
    write(tmp_path, up_dot_txt="u")
    monkeypatch.setattr(file_bundle, "_MOST_NAMED_BYTES", 50)
    needs = file_bundle.contents(variant(folder))
    assert needs is not None
    assert set(needs.files) == {"0/model.py", "0/deep/inner.py", "0/words.txt", "0/data/one.txt"}
