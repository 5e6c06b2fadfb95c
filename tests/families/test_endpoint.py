"""Services measured from outside: a server in this process, `mlflow models serve`, and everything that can fail."""

from __future__ import annotations

import io
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlflow_compress import registry
from mlflow_compress.errors import CompressError, RecipeError, Unsupported, WeightsError, WorkerError
from mlflow_compress.measuring import isolate, worker
from mlflow_compress.meters.load import TIME_LINE
from mlflow_compress.networks import model_folder
from mlflow_compress.planning import chains, recipe
from mlflow_compress.planning.recognise import Recognised, recognise
from mlflow_compress.records import Budget, Result, Variant, read_json
from mlflow_compress.reporting import against_original, table_text
from mlflow_compress.tracking import logged_names

pytestmark = pytest.mark.full

SECRET = "Bearer t0p-s3cret"
PORTS = [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}, {"name": "ids", "datatype": "INT64", "shape": [-1, -1]}]
TEXT_PORTS = [{"name": "t", "datatype": "BYTES", "shape": [-1, 1]}]
SERVER = {"name": "triton", "version": "2.50", "extensions": ["binary_tensor_data"]}


class Handler(BaseHTTPRequestHandler):
    """Answers by the path; `requests` holds what it got."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for an answer: else the client's system delays its acknowledgement by 40 ms
    requests: list[tuple[str, dict[str, str], bytes]]

    def log_message(self, *args: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        ports = {"net": PORTS, "text": TEXT_PORTS, "empty": []}
        answers: dict[str, Any] = {f"/v2/models/{name}": {"inputs": inputs} for name, inputs in ports.items()}
        answers["/v2"] = SERVER
        self.answer(200 if self.path in answers else 400, answers.get(self.path, {"error": "unknown model"}))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append((self.path, dict(self.headers), body))
        if self.path == "/invocations":
            texts = json.loads(body)["inputs"]
            self.answer(200, {"predictions": [{"label": "good" if "good" in text else "bad"} for text in texts]})
        elif self.path == "/scores":
            self.answer(200, {"scores": [[0.1, 0.7, 0.2]]})
        elif self.path.startswith("/v2/"):
            self.answer(200, {"outputs": [{"name": "y", "shape": [1], "data": ["spoken"]}]})
        elif self.path == "/secret":
            self.answer(403, {"you sent": self.headers.get("Authorization", "nothing")})
        elif self.path == "/moved":
            self.answer(307, {}, Location="http://elsewhere.example/predict?token=1")
        elif self.path == "/sound":
            self.answer(200, b"\xff\xfb sound")
        elif self.path == "/closing":
            self.answer(200, {}, Connection="close")
        elif self.path == "/dying" and len(self.requests) > 4:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif self.path == "/dripping":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(1000):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.answer(503 if self.path == "/broken" else 200, {"fine": True})

    def answer(self, status: int, content: Any, **headers: str) -> None:
        """Write an answer."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any]]]:
    requests: list[Any] = []
    handler = type("Recording", (Handler,), {"requests": requests})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        service.daemon_threads, service.block_on_close = True, False
        thread = threading.Thread(target=service.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}", requests
        service.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    samples = [("a good film", "good"), ("dull", "bad"), ("so", "good")]
    rows = [{"text": text, "label": label} for text, label in samples]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "inputs.txt").write_text("good\n\nother\n")
    return tmp_path


def variant_of(url: str, folder: Path, chain: str = "original", **options: Any) -> Variant:
    metrics = ("accuracy",)
    budget = Budget(min_iterations=6, min_seconds=0.1, warmup_max_seconds=0.1, launches=1, timeout_seconds=120)
    return Variant("m", chain, "t", "endpoint", url, options=options, metrics=metrics, budget=budget,
                   chain=chains.parse_chain(chain), folder=str(folder))  # fmt: skip


def loaded(url: str, folder: Path, **options: Any) -> tuple[Any, Any]:
    family = registry.build("families", "endpoint", options)
    return family, family.load(url, "auto", folder, 0)


def error_of(url: str, folder: Path, **options: Any) -> CompressError:
    try:
        family, model = loaded(url, folder, **{"inputs": ["x"], **options})
        family.run(model, family.batch(model, 1, 0), lambda stage: None)
    except CompressError as error:
        return error
    raise AssertionError(f"{url} raised no error")


def test_a_row_of_a_service(server: tuple[str, list[Any]], folder: Path) -> None:
    url, requests = server
    options: dict[str, Any] = {"answer": "predictions.0.label", "load_callers": 2, "load_seconds": 0.5}
    variant = variant_of(f"{url}/invocations", folder, **options)
    variant = Variant.from_json({**vars(variant), "data": "data.jsonl"})
    work = folder / "work"
    result = isolate.run(variant, work, lambda event: None)
    assert (result.status, result.reason) == ("ok", "")
    numbers = result.measurements
    assert numbers["quality/accuracy"] == pytest.approx(2 / 3)
    assert numbers["cpu/latency_p50_ms"] > 0
    assert numbers["load/errors"] == 0
    assert numbers["load/requests_per_second"] > 10
    absent = ("size/", "ram_", "energy", "load_ms", "cpu_time_share")
    assert not [name for name in (*numbers, *result.samples) if any(part in name for part in absent)]
    assert all(map(logged_names.is_metric, numbers))
    assert against_original.ratios_to(numbers, numbers, []).keys() & {"load/p50_ms", "cpu/latency_p50_ms"} == {
        "cpu/latency_p50_ms"  # one load has no known noise
    }
    assert table_text.label("load/p95_ms", "ru") == "под нагрузкой: p95, ms"
    assert "measured_from_outside" in {caution.code for caution in result.cautions}
    assert result.facts["weights"] == "remote"
    assert result.facts["load"] == "constant, 2 callers, 0.5 s"
    assert sum(row[1] for row in read_json(work / TIME_LINE)["data"]) == len(result.samples["load/latency_ms"])
    assert json.loads(requests[0][2]) == {"inputs": ["a good film"]}
    with pytest.raises(WeightsError, match="holds the address of a service"):
        model_folder.restore_others(work / worker.MODEL_FOLDER)


def test_methods_are_refused(server: tuple[str, list[Any]], folder: Path) -> None:
    with pytest.raises(Unsupported, match="compress its model, start it again"):
        worker.prepare(variant_of(f"{server[0]}/x", folder, "fp16"), folder, worker.Report(io.StringIO()))
    family, model = loaded(f"{server[0]}/x", folder)
    model.device = "cuda"
    with pytest.raises(Unsupported, match="measured only in the CPU run"):
        family.batch(model, 1, 0)


def test_the_body_is_a_template(server: tuple[str, list[Any]], folder: Path) -> None:
    url, requests = server
    (folder / "body.json").write_text('{"texts": "$inputs", "first": ["$input"], "k": 3}')
    family, model = loaded(f"{url}/predict", folder, body="body.json", inputs="inputs.txt")
    family.run(model, family.batch(model, 2, 1), lambda stage: None)
    assert json.loads(requests[-1][2]) == {"texts": ["other", "good"], "first": ["other"], "k": 3}
    family, model = loaded(f"{url}/predict", folder, inputs=[{"a": 1}])
    family.run(model, family.batch(model, 1, 0), lambda stage: None)
    assert json.loads(requests[-1][2]) == {"a": 1}
    with pytest.raises(RecipeError, match="no place for several inputs"):
        family.batch(model, 2, 0)
    for options in ({"body": "../body.json"}, {"inputs": "/etc/passwd"}):
        with pytest.raises(RecipeError, match="must be the name of a file in the folder of the recipe"):
            loaded(f"{url}/predict", folder, **options)


def test_scores_become_labels(server: tuple[str, list[Any]], folder: Path) -> None:
    family, model = loaded(f"{server[0]}/scores", folder, answer="scores", labels=["a", "b", "c"])
    assert family.predict(model, ["x", "y"]) == ["b", "b"]
    family, model = loaded(f"{server[0]}/scores", folder, answer="scores.0")
    assert family.predict(model, ["x"]) == ["1"]
    for answer, message in [("score", r"has no score \(at score\)"), ("", "not a text, a number or scores")]:
        family, model = loaded(f"{server[0]}/scores", folder, answer=answer)
        with pytest.raises(RecipeError, match=message):
            family.predict(model, ["x"])
    family, model = loaded(f"{server[0]}/sound", folder, inputs=["Say this."])  # timed, but not scored
    family.run(model, family.batch(model, 1, 0), lambda stage: None)
    with pytest.raises(RecipeError, match="The answer of the service is not JSON"):
        family.predict(model, ["x"])


def test_the_open_inference_protocol(server: tuple[str, list[Any]], folder: Path) -> None:
    url, requests = server
    family, model = loaded(f"{url}/v2/models/net", folder, length=2)
    assert model.runtime == "triton 2.50"
    batch = family.batch(model, 4, 0)
    family.run(model, batch, lambda stage: None)
    path, headers, body = requests[-1]
    length = int(headers["Inference-Header-Content-Length"])
    head = json.loads(body[:length])
    assert path == "/v2/models/net/infer"
    assert [(port["name"], port["shape"], port["datatype"]) for port in head["inputs"]] == [
        ("x", [4, 3], "FP32"),
        ("ids", [4, 2], "INT64"),
    ]
    assert [port["parameters"]["binary_data_size"] for port in head["inputs"]] == [48, 64]
    assert body[length + 48 :] == (1).to_bytes(8, "little") * 8
    assert family.predict(model, [{"x": [1.0, 2, 3], "ids": [7]}]) == ["spoken"]
    sent = {"name": "ids", "shape": [1, 1], "datatype": "INT64", "data": [7]}
    assert json.loads(requests[-1][2])["inputs"][1] == sent
    with pytest.raises(RecipeError, match=r"x takes the shape \[-1, 3\]"):
        family.predict(model, [{"x": [1.0, 2], "ids": [7]}])
    with pytest.raises(RecipeError, match="must be a mapping"):
        family.predict(model, [[1.0]])
    assert "-O length=N" in str(error_of(f"{url}/v2/models/net", folder, inputs=[]))
    family, model = loaded(f"{url}/v2/models/text/infer", folder)
    assert family.predict(model, ["hello"]) == ["spoken"]
    assert json.loads(requests[-1][2])["inputs"][0]["shape"] == [1, 1]
    with pytest.raises(RecipeError, match="takes texts"):
        family.batch(model, 1, 0)
    assert "unknown model" in str(error_of(f"{url}/v2/models/nut", folder))
    assert "describes no inputs" in str(error_of(f"{url}/v2/models/empty", folder))


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("/broken", WorkerError, 'answered with status 503: {"fine": true}. Look into the log'),
        ("/moved", RecipeError, "redirects to http://elsewhere.example/predict. Redirects are not followed"),
        ("/secret", WeightsError, "It requires a secret"),
        ("/dripping", WorkerError, "did not answer within 0.3 s"),
        ("/v2/models/nut", RecipeError, "answered with status 400"),
    ],
)
def test_an_error_of_a_service_is_a_message(
    path: str, kind: type, message: str, server: tuple[str, list[Any]], folder: Path
) -> None:
    started = time.monotonic()
    error = error_of(f"{server[0]}{path}", folder, timeout=0.3)
    assert type(error) is kind or (kind is WorkerError and isinstance(error, WorkerError))
    assert message in str(error)
    assert time.monotonic() - started < 40  # one of them answers for 50 s


def test_a_service_that_is_not_there_or_silent(folder: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        error = error_of(f"http://127.0.0.1:{port}/x", folder)
        assert isinstance(error, WeightsError)
        assert "There is no service at http://127.0.0.1" in str(error)
        silent.listen()
        assert "did not answer within 0.2 s" in str(error_of(f"http://127.0.0.1:{port}/x", folder, timeout=0.2))


def test_a_service_that_dies_fails_the_row(server: tuple[str, list[Any]], folder: Path) -> None:
    url = f"{server[0]}/dying"
    result: Result = isolate.run(variant_of(url, folder, inputs=["x"]), folder / "work", lambda event: None)
    assert result.status == "failed"
    assert "closed the connection" in result.reason


def test_a_new_connection_for_each_request_is_a_caution(server: tuple[str, list[Any]], folder: Path) -> None:
    family, model = loaded(f"{server[0]}/closing", folder, inputs=["x"])
    for seed in range(2):
        family.forward(model, family.batch(model, 1, seed))
    assert [caution.code for caution in model.cautions] == ["measured_from_outside", "new_connections"]


def test_a_load_counts_errors(server: tuple[str, list[Any]], folder: Path) -> None:
    family, model = loaded(f"{server[0]}/broken", folder, inputs=["x"], load_rate=40, load_seconds=0.5)
    part = family.under_load(model, 0, worker.Report(io.StringIO()), folder)
    assert part.measurements == {"load/requests_per_second": 0, "load/errors": 1}
    [errors] = [caution for caution in part.cautions if caution.code == "load_errors"]  # the client may be late too
    assert "x status 503" in errors.message
    family, model = loaded(f"{server[0]}/x", folder)
    assert family.under_load(model, 0, worker.Report(io.StringIO()), folder) is None


def test_secrets_are_sent_but_never_shown(
    server: tuple[str, list[Any]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, requests = server
    monkeypatch.setenv("OWN_TOKEN", SECRET)
    options: dict[str, Any] = {"headers": "X-None=HOME; Authorization=OWN_TOKEN"}
    assert "If you trust it" in str(error_of(f"{url}/secret", folder, **options))
    error = error_of(f"{url}/secret", folder, **options, trust=True)
    assert requests[-1][1]["Authorization"] == SECRET
    assert "t0p-s3cret" not in str(error)
    assert "***" in str(error)
    variant = variant_of(f"{url}/x", folder, inputs=["x"], **options, trust=True)
    part = worker.prepare(variant, folder, worker.Report(io.StringIO()))
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert not any(b"t0p-s3cret" in content for content in (*written, repr(part).encode()))
    for value in ("", "two\nlines"):
        monkeypatch.setenv("OWN_TOKEN", value)
        assert "is not set" in str(error_of(f"{url}/x", folder, **options, trust=True))
    assert "NAME=VARIABLE" in str(error_of(f"{url}/x", folder, headers="Authorization=Bearer x", trust=True))


def planned(name: str, family: str) -> list[Variant]:
    plan = recipe.read(name, family)
    return recipe.plan(plan, plan.variants, recipe.Settings())


@pytest.mark.parametrize("url", ["http://me:pw@host/x", "https://host/x?key=pw", "http://host/x#pw", "HTTP://pw@host"])
def test_an_address_with_a_secret_is_refused_before_it_is_logged(url: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"family: endpoint\nsource: {url!r}\n".replace("'", '"'))
    for name, family in [(url, ""), (url.partition("//")[2], "endpoint"), (str(tmp_path / "own.yaml"), "")]:
        with pytest.raises(RecipeError, match="must not contain a user name") as caught:
            planned(name, family)
        assert "pw" not in str(caught.value)


def test_an_address_is_recognised() -> None:
    name = "http://localhost:8000/v2/models/net"
    assert recognise(name) == Recognised("localhost:8000/v2/models/net", "endpoint", name)
    assert recognise("https://[::1]/") == Recognised("[::1]:443", "endpoint", "https://[::1]/")
    assert recognise("https://huggingface.co/a/b/c/d") is None
    for wrong in ("http://", "http://host:port/x", "http://a b/"):
        with pytest.raises(RecipeError, match="is not the address of a service"):
            recognise(wrong)


def test_a_model_that_mlflow_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    inputs = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    mlflow.sklearn.save_model(LogisticRegression().fit(inputs, [0, 0, 1, 1]), str(tmp_path / "model"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["models", "serve", "-m", "model", "-p", str(port), "--env-manager", "local", "--workers", "1"]
    process = psutil.Popen([sys.executable, "-m", "mlflow", *arguments], cwd=tmp_path)
    try:
        for _ in range(240):
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        family, model = loaded(f"http://127.0.0.1:{port}/invocations", tmp_path)
        assert family.predict(model, [[-3.0], [3.0]]) == ["0", "1"]
        error = error_of(f"http://127.0.0.1:{port}/invocations", tmp_path, body={"nothing": "$input"})
        assert "status 400" in str(error)
    finally:
        for child in (*process.children(recursive=True), process):
            child.kill()
        process.wait()
