from __future__ import annotations

import pytest

from mlflow_compress.errors import Cause, CompressError, RecipeError, UnknownName, WeightsError, WorkerError, failure


@pytest.mark.parametrize(
    ("cause", "kind", "code"),
    [("weights", WeightsError, 3), ("recipe", RecipeError, 2), ("measuring", WorkerError, 1), ("", WorkerError, 1)],
)
def test_a_failed_result_is_told_with_the_exit_code_of_its_cause(
    cause: Cause, kind: type[CompressError], code: int
) -> None:
    error = failure(cause, "what happened")
    assert (type(error), error.exit_code, str(error)) == (kind, code, "what happened")


def test_an_error_knows_what_it_is_the_cause_of() -> None:
    assert UnknownName("method", "x", ["y"]).cause == "recipe"
    assert WeightsError("gone").cause == "weights"
    assert CompressError("?").cause == "measuring"
