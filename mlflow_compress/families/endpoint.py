"""Services over HTTP, measured from outside: MLflow, Triton and KServe, or any JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from mlflow_compress.data.datasets import scored
from mlflow_compress.errors import RecipeError, Unsupported, WeightsError
from mlflow_compress.files import whole_file
from mlflow_compress.meters import load as meter
from mlflow_compress.networks import open_inference
from mlflow_compress.networks.http_service import Address, Answer, Connection, ServiceError, address_of
from mlflow_compress.networks.open_inference import Port
from mlflow_compress.plain_text import plain
from mlflow_compress.records import CautionKind, Outcome, Part
from mlflow_compress.sockets import Family, Mark, Model, Reporter, Sample
from mlflow_compress.trust_word import trust_word
from mlflow_compress.untrusted import Malformed, parse_json, read_json

_FILE = "endpoint.json"
_ROLES = ("text", "label")
_INPUT, _INPUTS = "$input", "$inputs"  # in a body: the first input, and all inputs
_JSON, _BYTES = {"Content-Type": "application/json"}, {"Content-Type": "application/octet-stream"}
_HEADER = re.compile(r"(?P<name>[A-Za-z0-9-]+)=(?P<variable>[A-Za-z_]\w*)", re.ASCII)
_ANSWERS: Mapping[str, str] = {"mlflow": "predictions.0", "v2": "outputs.0.data", "json": ""}
_MOST_INPUTS = 64  # different requests in a load
_RANDOM_BODIES = 8
_MOST_REQUESTS = 1_000_000
_MOST_BYTES = 2**30  # of sample inputs
_LONGEST_EXCERPT = 200

OUTSIDE = CautionKind(
    "measured_from_outside",
    short={
        "en": "a service, timed by its client over the network: its device, size, RAM and VRAM are unknown",
        "ru": "сервис, время измерено клиентом по сети: устройство, размер, RAM и VRAM сервиса неизвестны",
    },
    message={
        "en": "{name} is a service: its client measured the time, with the network; the column CPU means the client, "
        "not the device of the service; its size, RAM, VRAM and energy can't be seen from outside",
        "ru": "{name} это сервис: время измерил клиент, вместе с сетью; колонка CPU относится к клиенту, а не к "
        "устройству сервиса; размер, RAM, VRAM и энергию сервиса снаружи не видно",
    },
    advice={
        "en": "Compare it only with services that the same client reaches in the same way. Measure the model itself "
        "for its size and memory.",
        "ru": "Сравнивайте его только с сервисами, до которых тот же клиент доходит тем же путём. Размер и память "
        "измерьте у самой модели.",
    },
)
RECONNECTED = CautionKind(
    "new_connections",
    short={
        "en": "the service closes the connection after each request: the time includes opening it",
        "ru": "сервис закрывает соединение после каждого запроса: время включает его открытие",
    },
    message={
        "en": "the service closes the connection after each request: each one is timed with opening a new connection",
        "ru": "сервис закрывает соединение после каждого запроса: в каждое измерение входит открытие нового",
    },
    advice={"en": "Let the service keep connections open (HTTP/1.1).",
            "ru": "Пусть сервис держит соединения открытыми (HTTP/1.1)."},
)  # fmt: skip


@dataclass
class Service:
    """A service, and what is sent to it.

    Attributes:
        connection: The connection of timed and scored requests.
        protocol: `mlflow`, `v2` or `json`.
        inputs: Sample inputs for timed requests; empty: random ones.
        body: The body, with placeholders; None: the inputs themselves.
        ports: For `v2`: the inputs of the model.
        is_binary: For `v2`: whether timed tensors are sent as bytes.
        runtime: Name and version of the server, if it tells them.
    """

    connection: Connection
    protocol: str
    inputs: list[Any] = field(default_factory=list)
    body: Any = None
    ports: list[Port] = field(default_factory=list)
    is_binary: bool = False
    runtime: str = "service"


@dataclass
class Endpoint(Family):
    """A service over HTTP, measured from outside: MLflow's scoring server, Triton and KServe, or any JSON.

    Source: the address of a POST: `http://HOST:PORT/PATH` or `https://...`, without secrets. No method applies to it.

    One caller sends one request after another over one open connection, so its row compares with others of the same
    client. Size, memory and energy are missing: a client can't see them.

    Attributes:
        protocol: `mlflow` (`mlflow models serve`), `v2` (the open inference protocol of Triton, KServe and MLServer) or
            `json` (any body); `auto`: `mlflow` for a path that ends in `/invocations`, `v2` for `/v2/models/NAME`, else
            `json`.
        body: the body of a request for `mlflow` and `json`, as a mapping in a recipe or the name of a JSON file. In it
            `$input` stands for the first input and `$inputs` for all of them. Empty: `{"inputs": $inputs}` for
            `mlflow`, `$input` for `json`.
        inputs: sample inputs of timed requests: a list in a recipe, or the name of a file with one text (`.txt`) or
            JSON value (`.jsonl`) in each line. Empty: the first samples of the data; for `v2` random tensors.
        length: for `v2`, the length of axes, besides the first, that the metadata leaves open.
        answer: where the answer of one sample is in the response: `predictions.0.label`. Scores are replaced by the
            class with the highest. Empty: `predictions.0` for `mlflow`, `outputs.0.data` for `v2`, all for `json`.
        labels: names of the classes, in order, for answers that are scores; empty: their numbers.
        timeout: time limit of one request, in seconds.
        headers: headers from environment variables, `NAME=VARIABLE`, separated by `;`. Only these names are logged. It
            requires trust, because a recipe of others could send your secrets to them.
        load_rate: highest rate of a load, in requests per second; 0: none.
        load_callers: highest number of callers at the same time, as a load without a rate; 0: none.
        load_pattern: `constant`; `ramp`: rises evenly from nothing; `spike`: a tenth of the load, but all of it in the
            middle fifth.
        load_seconds: duration of the load.
        trust: whether to send secret headers to this address.
    """

    call_options: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[str] = (
        "one HTTP request of one caller over an open connection, from sending its body to the last byte of the answer; "
        "the body is encoded before, and the answer is not decoded"
    )
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    gives: ClassVar[tuple[str, ...]] = ("labels", "texts")
    has_random_weights: ClassVar[bool] = False
    is_remote: ClassVar[bool] = True

    protocol: Literal["auto", "mlflow", "v2", "json"] = "auto"
    body: str | dict[str, Any] = ""
    inputs: str | list[Any] = ""
    length: Annotated[int, Ge(0)] = 0
    answer: str = ""
    labels: list[str] = field(default_factory=list)
    timeout: Annotated[float, Gt(0), Le(3600)] = 30.0
    headers: str = ""
    load_rate: Annotated[float, Ge(0), Le(10_000)] = 0.0
    load_callers: Annotated[int, Ge(0), Le(1000)] = 0
    load_pattern: Literal["constant", "ramp", "spike"] = "constant"
    load_seconds: Annotated[float, Gt(0), Le(3600)] = 30.0
    trust: bool = False

    @classmethod
    def require_loggable(cls, source: str) -> None:
        """Check that an address contains no secret (see `http_service.address_of`)."""
        address_of(source)

    def load(self, source: str, weights: str, folder: Path, seed: int) -> Model:
        """Connect to the service, and read what it says about its inputs.

        Raises:
            RecipeError: the address or an option is not valid, or the service does not know the path.
            WeightsError: there is no service, or it requires a secret.
        """
        if weights != "auto":
            raise RecipeError(f"A service has its own weights: leave out --weights {weights}.")
        if self.headers and not self.trust:
            raise RecipeError(
                f"option headers sends secrets to {address_of(source).name}. If you trust it: {trust_word()}"
            )
        if self.load_rate and self.load_callers:
            raise RecipeError("load_rate and load_callers are two kinds of load: leave out one.")
        if self.load_rate * self.load_seconds > _MOST_REQUESTS:
            raise RecipeError(
                f"A load of more than {_MOST_REQUESTS:,} requests is not sent: lower load_rate or load_seconds."
            )
        address, protocol = self._address(source)
        service = Service(self._connection(address), protocol)
        service.body, service.inputs = self._body_template(folder, protocol), self._sample_inputs(folder)
        try:
            if protocol == "v2":
                self._describe(service)
            else:
                service.connection.open()
        except ServiceError as error:
            raise WeightsError(str(error)) from None
        return self._model(service)

    def _address(self, source: str) -> tuple[Address, str]:
        """Return the address of the requests, and their protocol."""
        address = address_of(source)
        v2 = open_inference.PATH.fullmatch(address.path)
        guessed = "v2" if v2 else "mlflow" if address.path.endswith("/invocations") else "json"
        protocol = guessed if self.protocol == "auto" else self.protocol
        if protocol == "v2" and v2 is None:
            raise RecipeError(f"{source} has no path /v2/models/NAME, which the protocol v2 requires.")
        if protocol == "v2" and v2 is not None and not v2["verb"]:
            address = dataclasses.replace(address, path=f"{address.path}/infer")
        return address, protocol

    def _connection(self, address: Address) -> Connection:
        """Return a new connection with the headers of the options.

        Raises:
            RecipeError: a header is not of the form NAME=VARIABLE, or there is no such variable.
        """
        headers = {}
        for text in filter(None, self.headers.split(";")):
            if (match := _HEADER.fullmatch(text.strip())) is None:
                raise RecipeError("option headers takes NAME=VARIABLE, with the name of an environment variable.")
            value = os.environ.get(match["variable"], "").strip()
            if not value.isascii() or not value.isprintable() or not value:
                raise RecipeError(
                    f"The environment variable for the header {match['name']} is not set, or is not one line of ASCII. "
                    "Variables that begin with MLFLOW_ or DATABRICKS_ are not passed on."
                )
            headers[match["name"]] = value
        return Connection(address, self.timeout, headers)

    def _body_template(self, folder: Path, protocol: str) -> Any:
        """Return the body with placeholders, from the option or its file."""
        if not self.body:
            return {"inputs": _INPUTS} if protocol == "mlflow" else _INPUT
        if protocol == "v2":
            raise RecipeError("The protocol v2 has its own body: leave out the option body, or set protocol=json.")
        if not isinstance(self.body, str):
            return self.body
        try:
            return read_json(_beside(folder, "body", self.body))
        except (OSError, Malformed) as error:
            raise RecipeError(f"option body: {self.body} can't be read as JSON: {error}") from None

    def _sample_inputs(self, folder: Path) -> list[Any]:
        """Return the sample inputs of the option or its file."""
        if not isinstance(self.inputs, str) or not self.inputs:
            return list(self.inputs)[:_MOST_INPUTS]
        path = _beside(folder, "inputs", self.inputs)
        try:
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:_MOST_INPUTS]
            values = lines if path.suffix == ".txt" else [parse_json(line, path.name) for line in lines]
        except (OSError, ValueError) as error:
            raise RecipeError(f"option inputs: {self.inputs} can't be read: {error}") from None
        if not values:
            raise RecipeError(f"option inputs: {self.inputs} is empty.")
        return values

    def _describe(self, service: Service) -> None:
        """Read the inputs from the metadata of the model, and what server it is."""
        connection = service.connection
        path = connection.address.path.removesuffix("/infer")
        answer = connection.get(path)
        if (error := connection.error_of(answer)) is not None:
            raise error
        service.ports = open_inference.ports_of(_parsed(answer), path)
        match = open_inference.PATH.fullmatch(connection.address.path)
        about = connection.get(match["server"]) if match is not None else answer
        server = _parsed(about) if about.is_ok else {}
        if isinstance(server, dict) and isinstance(server.get("name"), str):
            service.runtime = plain(f"{server['name']} {server.get('version', '')}".strip(), 80)
            service.is_binary = open_inference.BINARY in (server.get("extensions") or ())

    def _model(self, service: Service) -> Model:
        from torch import nn

        model = Model(nn.Module().eval(), weights="remote", family_data=service, runtime=service.runtime)
        model.cautions.append(OUTSIDE.of(name=service.connection.address.name))
        return model

    def batch(self, model: Model, size: int, seed: int) -> Any:
        """Encode the body of one request with `size` inputs.

        Returns:
            The body as bytes [length], and for binary tensors the length of its JSON part.

        Raises:
            RecipeError: there is no sample input, or the body or the service takes another number of them.
            Unsupported: the device is a GPU.
        """
        import torch

        if model.device != "cpu":
            raise Unsupported("the service chooses its own device: its time is measured only in the CPU run")
        service = _of(model)
        if not service.inputs and service.protocol == "v2":
            body, json_bytes = open_inference.random_body(service.ports, size, self.length, seed, service.is_binary)
        elif not service.inputs:
            raise RecipeError(
                "There is no sample input to send: use data, or the option inputs with a .jsonl or .txt file"
            )
        else:
            chosen = [service.inputs[(seed + index) % len(service.inputs)] for index in range(size)]
            body, json_bytes = self._encoded(service, chosen), 0
        return {"body": torch.frombuffer(bytearray(body), dtype=torch.uint8), "json_bytes": json_bytes}

    def run(self, model: Model, batch: Any, mark: Mark) -> Any:
        """Send the request, and return the answer.

        Raises:
            CompressError: the service did not accept it, or did not answer in time.
        """
        connection = _of(model).connection
        answer = _posted(connection, batch)
        if (error := connection.error_of(answer)) is not None:
            raise error
        return answer

    def forward(self, model: Model, batch: Any) -> Any:
        """Send the request. Its answer is not compared: a service may return an id or the time with it."""
        import torch

        answer: Answer = self.run(model, batch, lambda stage: None)
        if answer.is_last and RECONNECTED.of() not in model.cautions:
            model.cautions.append(RECONNECTED.of())
        return torch.empty(0)

    def refuses(self, model: Model) -> str:
        """Return why no method applies."""
        return "a service can't be compressed from outside: compress its model, start it again, and measure its address"

    def samples(self, model: Model, data: str, folder: Path, limit: int | None, seed: int) -> Sequence[Sample]:
        """Read inputs (the role `text`: texts, or any JSON values) and their labels or reference texts.

        Raises:
            RecipeError: the data can't be read (see `datasets.read`).
        """
        rows = scored(model, data, folder, _ROLES, limit, seed)
        service = _of(model)
        service.inputs = service.inputs or [row.values["text"] for row in rows[:_MOST_INPUTS]]
        return [Sample(row.values["text"], _text(row.values["label"])) for row in rows]

    def predict(self, model: Model, inputs: Sequence[Any]) -> list[str]:
        """Send a request for each input, and return the label or the text in each answer.

        Raises:
            CompressError: the service did not accept a request, or its answer has another form.
        """
        service = _of(model)
        where = self.answer or _ANSWERS[service.protocol]
        predictions = []
        for value in inputs:
            answer = service.connection.post(self._encoded(service, [value]), _JSON)
            if (error := service.connection.error_of(answer)) is not None:
                raise error
            try:
                predictions.append(self._label(_within(_parsed(answer), where), where))
            except RecipeError as error:  # it quotes the answer
                raise RecipeError(service.connection.without_secrets(str(error))) from None
        return predictions

    def _label(self, value: Any, where: str) -> str:
        """Return an answer as text; for scores, the class with the highest."""
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, list) and value and all(_is_number(score) for score in value):
            number = max(range(len(value)), key=value.__getitem__)
            if self.labels and len(self.labels) != len(value):
                raise RecipeError(
                    f"options.labels names {len(self.labels)} classes; the answer has {len(value)} scores."
                )
            return self.labels[number] if self.labels else str(number)
        if isinstance(value, (str, int, float)):
            return _text(value)
        raise RecipeError(
            f"The answer of the service at {where or 'its top'} is {plain(json.dumps(value), _LONGEST_EXCERPT)}, not a "
            "text, a number or scores: set the option answer to the path of one (answer=predictions.0.label)."
        )

    def _encoded(self, service: Service, inputs: Sequence[Any]) -> bytes:
        """Return the JSON body of a request for inputs."""
        if service.protocol == "v2":
            return open_inference.body_of(service.ports, inputs)
        if len(inputs) > 1 and _INPUTS not in _leaves(service.body):
            raise RecipeError(f"The body has no place for several inputs ({_INPUTS}): use --batch-size 1.")
        return json.dumps(_filled(service.body, inputs)).encode()

    def under_load(self, model: Model, seed: int, reporter: Reporter, folder: Path) -> Part | None:
        """Put the load of the options on the service; write its time line."""
        if not (self.load_rate or self.load_callers):
            return None
        service = _of(model)
        load = meter.Load(self.load_rate, self.load_callers, self.load_pattern, self.load_seconds, seed)
        batches = [self.batch(model, 1, seed + index) for index in range(len(service.inputs) or _RANDOM_BODIES)]

        def connect() -> meter.Send:
            connection = self._connection(service.connection.address)

            def send(number: int) -> str:
                try:
                    answer = _posted(connection, batches[number % len(batches)])
                except ServiceError as error:
                    return error.kind
                return "" if answer.is_ok else f"status {answer.status}"

            return send

        reporter.stage("measuring under load")
        outcome = meter.run(load, connect, self.timeout, reporter.progress)
        with whole_file(folder / meter.TIME_LINE) as partial_path:
            partial_path.write_text(json.dumps(outcome.table()), encoding="utf-8")
        return Part(
            Outcome("ok"),
            measurements=outcome.numbers(),
            samples={"load/latency_ms": outcome.latencies_ms()},
            cautions=tuple(outcome.cautions()),
            facts={"load": str(load)},
        )

    def save(self, model: Model, folder: Path) -> None:
        """Write the address, the sample inputs, and what the service says about itself."""
        service = _of(model)
        ports = [dataclasses.asdict(port) for port in service.ports]
        address = dataclasses.asdict(service.connection.address)
        description = {**vars(service), "ports": ports, "connection": address}
        (folder / _FILE).write_text(json.dumps(description), encoding="utf-8")

    def restore(self, folder: Path) -> Model:
        """Return the service of the saved address."""
        description = read_json(folder / _FILE, _MOST_BYTES)
        connection = self._connection(Address(**description.pop("connection")))
        ports = [Port(**{**port, "shape": tuple(port["shape"])}) for port in description.pop("ports")]
        return self._model(Service(connection, ports=ports, **description))


def _of(model: Model) -> Service:
    return model.data_as(Service)


def _posted(connection: Connection, batch: Mapping[str, Any]) -> Answer:
    """Send the body of a batch."""
    headers = {**_BYTES, open_inference.JSON_BYTES: str(batch["json_bytes"])} if batch["json_bytes"] else _JSON
    return connection.post(memoryview(batch["body"].numpy()), headers)


def _parsed(answer: Answer) -> Any:
    try:
        return parse_json(answer.body, "The answer of the service", len(answer.body), finite=False)
    except Malformed as error:
        raise RecipeError(f"{error} Its first bytes are {plain(repr(answer.body[:40]), _LONGEST_EXCERPT)}.") from None


def _within(value: Any, path: str) -> Any:
    """Return the part of an answer at a path: names of keys, and numbers of items, with dots between.

    Raises:
        RecipeError: the answer has no such part.
    """
    part = value
    for step in filter(None, path.split(".")):
        if isinstance(part, list) and step.isdecimal() and int(step) < len(part):
            part = part[int(step)]
        elif isinstance(part, dict) and step in part:
            part = part[step]
        else:
            raise RecipeError(
                f"The answer of the service has no {path} (at {step}): {plain(json.dumps(value), _LONGEST_EXCERPT)}. "
                "Set the option answer to the path of the label or text in it."
            )
    return part


def _filled(body: Any, inputs: Sequence[Any]) -> Any:
    """Return a body with the inputs in place of the placeholders."""
    if isinstance(body, dict):
        return {key: _filled(value, inputs) for key, value in body.items()}
    if isinstance(body, list):
        return [_filled(value, inputs) for value in body]
    return inputs[0] if body == _INPUT else list(inputs) if body == _INPUTS else body


def _leaves(body: Any) -> list[Any]:
    children = list(body.values()) if isinstance(body, dict) else body if isinstance(body, list) else None
    return [body] if children is None else [leaf for child in children for leaf in _leaves(child)]


def _text(value: Any) -> str:
    """Return a label as text: `1` for 1.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _beside(folder: Path, option: str, name: str) -> Path:
    """Return a file that an option names, in the folder of the recipe: others may have written the recipe."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise RecipeError(f"option {option}: {name} must be the name of a file in the folder of the recipe, {folder}.")
    return folder / name
