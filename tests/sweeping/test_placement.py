from __future__ import annotations

from typing import Any

from mlflow_compress.records import Step, Variant
from mlflow_compress.sweeping import ray_sweep
from mlflow_compress.sweeping.placement import Node, Placing, lack


def variant(model: str, method: str = "original", **fields: Any) -> Variant:
    return Variant(model, method, "t", "python", "x.py", chain=(Step(method),), **fields)


def node(name: str, cpu: str = "Xeon", **facts: str) -> Node:
    return Node(name, name, {"cpu_model": cpu, "cores_logical": "4", "ram_total_mib": "64000", **facts})


def test_memory_that_differs_little_is_one_kind() -> None:
    assert node("a", ram_total_mib="64101").kind == node("b", ram_total_mib="64399").kind
    assert node("a").kind != node("a", ram_total_mib="32000").kind
    assert node("a").kind != node("a", gpu_model="A100").kind
    assert node("a", ram_limit_mib="32000").kind == node("a", ram_total_mib="32000").kind
    assert node("a").kind != node("a", cores_limit="2").kind


def test_all_variants_of_a_model_go_to_one_kind() -> None:
    nodes = [node("a"), node("b"), node("c", cpu="EPYC")]
    variants = [variant("m", method) for method in ("original", "bf16", "fp16")]
    placing = Placing(variants)
    assert not placing.serves(nodes[2], nodes)(variants[0])  # two machines are done sooner than one
    assert placing.serves(nodes[0], nodes)(variants[0])
    placing.bind(variants[0], nodes[0].kind)
    assert [placing.serves(candidate, nodes)(variants[1]) for candidate in nodes] == [True, True, False]
    placing.release(nodes[0].kind)
    assert placing.serves(nodes[2], nodes[2:])(variants[1])


def test_the_kind_with_less_to_do_takes_the_next_model() -> None:
    nodes = [node("a"), node("c", cpu="EPYC")]
    first, second = variant("one"), variant("two")
    placing = Placing([first, second])
    placing.bind(first, nodes[0].kind)
    assert not placing.serves(nodes[0], nodes)(second)
    assert placing.serves(nodes[1], nodes)(second)


def test_requirements_and_devices_choose_the_machine() -> None:
    plain, gpu = node("a"), node("b", gpu_model="NVIDIA A100", gpu_memory_mib="81920")
    needs = variant("m", requires={"gpu": "A100"})
    placing = Placing([needs])
    assert "a:" in lack(needs, plain)
    assert not lack(needs, gpu)
    assert not placing.homeless(needs, [plain, gpu])
    assert "no machine of the cluster can measure it" in placing.homeless(needs, [plain])
    assert lack(variant("m", devices=("cuda",)), plain) == "a has no GPU"
    assert not placing.serves(plain, [plain, gpu])(needs)
    assert placing.homeless(needs, []) == "no machine of the cluster is left"


def test_a_variant_that_failed_goes_elsewhere_if_it_can() -> None:
    nodes = [node("a"), node("b")]
    lost_variant = variant("m")
    placing = Placing([lost_variant])
    assert placing.failed(lost_variant, nodes[0]) == 1
    assert not placing.serves(nodes[0], nodes)(lost_variant)
    assert placing.serves(nodes[1], nodes)(lost_variant)
    assert placing.serves(nodes[0], nodes[:1])(lost_variant)
    assert placing.failed(lost_variant, nodes[0]) == 2


def test_equal_variants_are_counted_apart() -> None:
    variants = [variant("m"), variant("m")]
    placing = Placing(variants)
    placing.done(variants[0])
    assert placing.group(variants[1]).left == placing.group(variants[1]).originals == 1


def test_what_waits_for_machines_that_are_gone_is_stranded() -> None:
    xeon, epyc = node("a"), node("c", cpu="EPYC")
    unbound, bound, unfit = variant("free"), variant("bound"), variant("unfit", requires={"min_cores": 64})
    placing = Placing([unbound, bound, unfit])
    placing.bind(bound, epyc.kind)
    assert [placing.is_stranded(candidate, [xeon]) for candidate in (unbound, bound, unfit)] == [False, True, True]
    assert [placing.is_stranded(candidate, [xeon, epyc]) for candidate in (unbound, bound, unfit)] == [
        False,
        False,
        True,
    ]
    assert placing.is_stranded(unbound, [])


def test_an_accelerator_of_another_kind_does_not_serve() -> None:
    mac = node("m", gpu_model="Apple M3 (MPS)", gpu_device="mps")
    assert lack(variant("m", devices=("xpu",)), mac) == "m has no XPU device, but MPS"
    assert lack(variant("m", devices=("cuda",)), mac) == "m has no CUDA device, but MPS"
    assert not lack(variant("m", devices=("mps",)), mac)
    assert not lack(variant("m", devices=("cpu", "mps")), mac)
    assert not lack(variant("m"), mac)


def test_a_variant_gets_the_devices_of_its_node() -> None:
    task = ray_sweep.Task(auto_device=True)
    mac = node("m", gpu_model="Apple M3 (MPS)", gpu_device="mps")
    assert task.placed(variant("m"), mac).devices == ("cpu", "mps")
    assert task.placed(variant("m"), node("a", gpu_model="NVIDIA A100")).devices == ("cpu", "cuda")
    assert task.placed(variant("m", devices=("cpu", "cuda")), node("a")).devices == ("cpu",)
    assert ray_sweep.Task().placed(variant("m"), mac).devices == ("cpu",)
