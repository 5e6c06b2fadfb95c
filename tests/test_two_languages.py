"""All texts for people exist in English and Russian, each in one place."""

from __future__ import annotations

import ast
import importlib
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlflow_compress
from mlflow_compress import words
from mlflow_compress.records import Caution, CautionKind

pytestmark = pytest.mark.full

PACKAGE = Path(mlflow_compress.__file__).parent
SOURCES = {
    ".".join(("mlflow_compress", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent.name != "recipes"
}


def calls(path: Path, name: str) -> Iterator[ast.Call]:
    """Return the calls of a function in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def kinds() -> Iterator[tuple[str, CautionKind]]:
    """Import the modules that declare cautions, and yield all declared cautions."""
    for module, path in SOURCES.items():
        declared = len(list(calls(path, "CautionKind")))
        if declared:
            kinds_found = {
                name: kind
                for name, kind in vars(importlib.import_module(module)).items()
                if isinstance(kind, CautionKind) and f"\n{name} = CautionKind(" in path.read_text(encoding="utf-8")
            }
            assert len(kinds_found) == declared, f"{module}: a kind of caution is declared at the top of its module"
            yield from ((f"{module}.{name}", kind) for name, kind in kinds_found.items())


KINDS = dict(kinds())


def fields(text: str) -> list[str]:
    return sorted(field for _, field, _, _ in string.Formatter().parse(text) if field is not None)


def test_a_caution_is_raised_of_a_kind_that_is_declared() -> None:
    assert len(KINDS) > 20
    raising = [module for module, path in SOURCES.items() if list(calls(path, "Caution"))]
    assert raising == ["mlflow_compress.records"]  # that makes them of a kind


@pytest.mark.parametrize("name", KINDS)
def test_a_caution_says_the_same_in_both_languages(name: str) -> None:
    kind = KINDS[name]
    for texts in (kind.message, kind.advice, kind.short):
        assert texts.keys() == {"en", "ru"} or (texts is kind.short and not texts)
        assert all(texts.values())
        assert len({tuple(fields(text)) for text in texts.values()}) <= 1
        assert not any(re.search(r"[А-яЁё]", text) for language, text in texts.items() if language == "en")
    assert not any("{" in text for text in kind.short.values()), "a table says it once, for all rows"


def test_kinds_of_one_code_say_the_same_in_a_table() -> None:
    short_texts: dict[str, object] = {}
    for kind in KINDS.values():
        assert short_texts.setdefault(kind.code, kind.short) == kind.short


def test_what_0_1_could_warn_of_is_said_in_the_words_of_today() -> None:
    today = {kind.code: kind.short for kind in KINDS.values()}
    for code, texts in words.CAUTIONS_OF_0_1.items():
        assert today.get(code, texts) == texts


def test_numbers_and_words_stand_in_the_texts() -> None:
    kind = CautionKind(
        "drift",
        {"en": "it drifted", "ru": "менялось"},
        {"en": "{share:.0%} {direction}", "ru": "{direction} на {share:.0%}"},
        {"en": "Wait {seconds} s.", "ru": "Подождите {seconds} с."},
    )
    caution = kind.of(share=0.07, direction={"en": "more", "ru": "больше"}, seconds=3)
    assert caution == Caution(
        "drift",
        "7% more",
        "Wait 3 s.",
        {
            "short": {"en": "it drifted", "ru": "менялось"},
            "message": {"en": "7% more", "ru": "больше на 7%"},
            "advice": {"en": "Wait 3 s.", "ru": "Подождите 3 с."},
        },
    )


# Modules that read hand-made tables know how people write, in both languages.
READERS = {"import_tables", "table_headings", "written_circumstances", "written_scores", "written_units"}


def test_russian_stands_in_its_homes_only() -> None:
    declaring = {name.rpartition(".")[0] for name in KINDS}
    for module, path in SOURCES.items():
        folder, _, name = module.removeprefix("mlflow_compress.").rpartition(".")
        is_home = module in declaring or folder == "metrics" or name == "words"
        is_reader = folder == "reporting" and name in READERS
        russian = re.findall("[\u0400-\u04ff]+", path.read_text(encoding="utf-8"))
        assert is_home or is_reader or not russian, f"{module}: {russian[:3]} belong to words.py"


def texts(about: object, path: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield all texts of words.py by language, also nested ones."""
    if isinstance(about, dict):
        if about.keys() & set(words.LANGUAGES):
            yield path, about
        else:
            for key, inner in about.items():
                yield from texts(inner, f"{path}.{key}")


TEXTS = {
    path: by_language
    for name, about in vars(words).items()
    if name.isupper() and name != "LANGUAGES"
    for path, by_language in texts(about, name)
}


@pytest.mark.parametrize("path", TEXTS)
def test_every_text_is_there_in_each_language_with_the_same_fields(path: str) -> None:
    by_language = TEXTS[path]
    assert by_language.keys() == set(words.LANGUAGES)
    first, second = (by_language[language] for language in words.LANGUAGES)
    pairs = [(first, second)]
    if isinstance(first, dict) and isinstance(second, dict):  # the words of a page, by name
        assert list(first) == list(second)
        pairs = [(first[key], second[key]) for key in first]
    for english, russian in pairs:
        if isinstance(english, str) and isinstance(russian, str):
            assert english
            assert russian
            assert fields(english) == fields(russian)
            assert not re.search("[\u0400-\u04ff]", english)


def test_words_has_texts() -> None:
    assert len(TEXTS) > 60


def test_a_tag_of_a_caution_stays_within_what_mlflow_keeps() -> None:
    assert len(Caution("of_a_plugin", "я" * 10_000).to_text()) < 5000
