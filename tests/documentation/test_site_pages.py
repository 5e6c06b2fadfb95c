"""The pages of the documentation: links lead somewhere, names exist, and wrong ones are found."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("yaml")

from website import links, names, reference, repository
from website.complaints import every_complaint
from website.markdown_page import MarkdownPage


@pytest.mark.full
def test_no_page_links_to_nowhere_or_names_what_does_not_exist() -> None:
    assert len(repository.paths()) > 30
    assert [str(complaint) for complaint in every_complaint()] == []


@pytest.mark.full
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("compress-bench run digits_cnn --methods", "compress-bench run has no option --methods"),
        ("compress-bench measure digits_cnn", "compress-bench has no command measure"),
        ("compress-bench run digits_rnn", "there is no recipe digits_rnn"),
        ("compress-bench run digits_cnn --method fp17", "Unknown method 'fp17'"),
        ("compress-bench run digits_cnn --family yolos", "there is no family yolos"),
        ("compress-bench run digits_cnn -O tokns=4", "no family has an option tokns"),
        ("compress-bench rescore RUN --metric werr", "there is no metric werr"),
        ("compress-bench run digits_cnn --device gpu", "--device takes auto, cpu, cuda, mps, xpu, not gpu"),
        ("compress-report gate -e hw1 --min-speed 2", "compress-report gate has no option --min-speed"),
        ("mlflow run . -P modle=yolo11l", "MLproject has no parameter modle"),
        ("mlflow run . -e swep -P model=yolo11l", "MLproject has no entry point swep"),
        ("mlflow run . -P model=yolo11l -P method=int9", "Unknown method 'int9'"),
        ("python -m benchmarks zooo", "there is no benchmark zooo"),
        ("python -m tests.fault", "there is no module tests.fault"),
        ("--baselines", "no command has an option --baselines"),
        ("-P methods=fp16", "MLproject has no parameter methods"),
        ("prune_magnitude:amout=0.5", "Unknown option of prune_magnitude 'amout'"),
        ("prune_magnitude+int9_dynamic", "Unknown method 'int9_dynamic'"),
        ("int9_dynamic", "the code has no name int9_dynamic"),
        ("cpu/latency_p51_ms", "no run has a metric cpu/latency_p51_ms"),
        ("quality/werr", "no run has a metric quality/werr"),
        ("compress.wrk", "no run has a tag compress.wrk"),
        ("COMPRESS_TEAMS", "nothing reads the variable COMPRESS_TEAMS"),
        ("recipes/hw2.yaml", "there is no file recipes/hw2.yaml"),
        ("mlflow_compress.records.Rows", "mlflow_compress.records has no Rows"),
        ("min_ram_gib=64", "the code has no name min_ram_gib"),
    ],
)
def test_a_name_that_does_not_exist_is_found(code: str, message: str) -> None:
    (text,) = names.of_code(code)
    assert text.startswith(message)


@pytest.mark.parametrize(
    "code",
    [
        "compress-bench run digits_cnn --method prune_magnitude:amount=0.5+int8_dynamic --seconds 1 -q",
        "compress-bench sweep ./mine.yaml --trust --experiment hw1",
        "compress-bench run MODEL --method METHOD",
        "compress-report -e 'hw*' --sort -cpu -o table.md > log.txt",
        "compress-report import README.md -e hw1 --team alpha --dry-run",
        "mlflow run . -e sweep -P model=digits_cnn -P batch_size=1,4 --experiment-name hw1",
        "mlflow server --app-name compress",
        "gpu/latency_p99_high_ms",
        "quality/wer_normalized_difference_low",
        "mlflow.compress.env.torch",
        "torch.float16",
        "min_ram_gb=64",
        "n / t",
    ],
)
def test_what_exists_or_is_not_ours_is_left_alone(code: str) -> None:
    assert list(names.of_code(code)) == []


@pytest.mark.full
@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            "```sh\n# first\ncompress-bench run digits_cnn \\\n  --metod\n```",
            "3: compress-bench run has no option",
        ),
        ('```sh\nalias m="mlflow run . -P team=a"\nm -P modell=x\n```', "3: MLproject has no parameter modell"),
        ("```sh\npip install '.[methodz]'\n```", "2: the package has no extra methodz"),
        ("```yaml\nmodels: [digits_cnn]\nmethod: [fp16]\n```", "2: Unknown key in recipe.yaml 'method'"),
        ("```yaml\nfamily: asr\nsource: x\nvariants: [fp17]\n```", "2: Unknown method 'fp17'"),
        ("```python\nimport mlflow_compress as mc\nmc.measure(1)\n```", "3: mlflow_compress has no measure"),
        ("```python\nfrom mlflow_compress.sockets import Methods\n```", "2: mlflow_compress.sockets has no Methods"),
        ("<!-- run fast -->\n\n```sh\nls\n```", "3: <!-- run fast --> is not a mark"),
        ("<!-- run -->\n\n```json\n{}\n```", "3: a block of json can't be run"),
    ],
)
def test_a_wrong_name_in_a_block_is_found_with_its_line(
    block: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = MarkdownPage(Path("docs/index.md"), block)
    monkeypatch.setattr(repository, "written_page", lambda path: page)
    (complaint,) = names.complaints(page)
    assert f"{complaint.line}: {complaint.message}".startswith(message)


@pytest.mark.full
@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("[a](nowhere.md)", "nowhere.md leads to no file of the repository"),
        ("[a](../../../secret)", "../../../secret leads to no file of the repository"),
        ("[a](/docs/index.md)", "/docs/index.md is an absolute path: write it relative to this page"),
        ("[a](#there)", "#there: docs/index.md has no anchor #there"),
        ('<img src="nothing.png" alt="">', "nothing.png leads to no file of the repository"),
        ("![a](comparisons.png)", "comparisons.png leads to no file of the repository"),
        ("[a](reference/methods.md#int9)", "reference/methods.md#int9: docs/reference/methods.md has no anchor #int9"),
    ],
)
def test_a_link_to_nowhere_is_found(link: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page, other_pages = MarkdownPage(Path("docs/index.md"), f"# Some\n\n{link}\n"), repository.page
    monkeypatch.setattr(repository, "written_page", lambda path: page)
    monkeypatch.setattr(repository, "page", lambda path: page if path == page.path else other_pages(path))
    (complaint,) = links.complaints(page.path)
    assert complaint.message == message


@pytest.mark.full
@pytest.mark.parametrize(
    "link",
    [
        "[a](https://example.org/x#y)",
        "[a](#two-words)",
        "[a](#two-words-1)",
        "[a](#x)",
        "[a](ru.md)",
        "[a](reference/methods.md#gptq)",
    ],
)
def test_a_link_that_leads_somewhere_is_left_alone(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f'# Some\n\n## Two `words`!\n\n## Two words\n\n<a id="x"></a>{link}\n'
    page, other_pages = MarkdownPage(Path("docs/index.md"), text), repository.page
    monkeypatch.setattr(repository, "written_page", lambda path: page)
    monkeypatch.setattr(repository, "page", lambda path: page if path == page.path else other_pages(path))
    assert list(links.complaints(page.path)) == []


def test_a_place_that_nothing_fills_is_an_error() -> None:
    with pytest.raises(KeyError, match="no such"):
        reference.filled("<!-- generated: no such -->\n")
