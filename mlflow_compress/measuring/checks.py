"""Judges what the meters saw: each check is a caution that says what is wrong and what to do about it.

The meters measure and this file judges, so that a threshold can be argued about in one place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mlflow_compress.meters import environment
from mlflow_compress.meters.energy import Energy
from mlflow_compress.meters.latency import Timing
from mlflow_compress.meters.usage import Usage
from mlflow_compress.percentiles import MLPERF_COUNTS, carries, interval, percentile
from mlflow_compress.records import Caution, CautionKind

_NOISY_SPREAD = 0.10  # of the median, between the quartiles
_DRIFT = 0.05
_BUSY_SHARE = 0.15  # of all cores, before measuring
_BUSY_GPU_SHARE = 0.05
_SWITCHES_PER_SECOND = 60  # of wall time, each thread: 31 were seen on a quiet machine, 96 beside a busy process
_IDLE_SHARE = 0.8  # of wall time times threads, below which our threads waited for something
_FAULT_SECONDS = 1e-6  # to hand out a page of 4 KiB and clear it: half of that on bare metal, 2.4 seen on a virtual one
_FAULT_SHARE = 0.10
_SLOW_CLOCK = 0.95
_TINY_SAMPLE = 100

INTERFERENCE = CautionKind(
    "interference",
    short={"en": "other programs took the cores away", "ru": "другие программы отнимали ядра"},
    message={
        "en": "cpu: other programs took the core from each thread {per_second:.0f} times a second, and the threads ran "
        "{share:.0%} of the time",
        "ru": "cpu: другие программы отнимали ядро у каждого потока {per_second:.0f} раз в секунду, потоки работали "
        "{share:.0%} времени",
    },
    advice={
        "en": "Close other programs, or leave them a core: --threads 1. Threads that wait for others suffer most.",
        "ru": "Закройте другие программы или оставьте им ядро: --threads 1. Больше всего страдают потоки, которые ждут "
        "друг друга.",
    },
)
PAGE_FAULTS = CautionKind(
    "page_faults",
    short={"en": "much time went into allocating memory", "ru": "много времени ушло на выделение памяти"},
    message={
        "en": "{group}: each call gets {pages:.0f} pages of memory anew from the kernel, which takes more than a tenth "
        "of its time",
        "ru": "{group}: каждый вызов заново получает от ядра системы {pages:.0f} страниц памяти, это больше десятой "
        "части его времени",
    },
    advice={
        "en": "Try an allocator that keeps memory: LD_PRELOAD of jemalloc or tcmalloc.",
        "ru": "Попробуйте аллокатор, который не возвращает память: LD_PRELOAD с jemalloc или tcmalloc.",
    },
)
SWAPPING = CautionKind(
    "swapping",
    short={"en": "the machine was swapping", "ru": "машина обращалась к подкачке"},
    message={
        "en": "{group}: each call read {pages:.0f} pages from the disk",
        "ru": "{group}: каждый вызов читал с диска {pages:.0f} страниц",
    },
    advice={
        "en": "The machine has too little free memory: close other programs, or take a smaller batch.",
        "ru": "Свободной памяти слишком мало: закройте другие программы или уменьшите батч.",
    },
)
_SLOWED_DOWN = {"en": "the clock was slowed down", "ru": "частота была снижена"}
THROTTLED = CautionKind(
    "throttled",
    short=_SLOWED_DOWN,
    message={
        "en": "{group}: the cores were slowed down {times} times because they were hot",
        "ru": "{group}: ядра замедлялись из-за нагрева, раз: {times}",
    },
    advice={
        "en": "Let the machine cool down, put it on mains power, and measure again.",
        "ru": "Дайте машине остыть, подключите её к сети и измерьте снова.",
    },
)
THROTTLED_GPU = CautionKind(
    "throttled",
    short=_SLOWED_DOWN,
    message={
        "en": "gpu: the driver slowed the clock down: {reason}",
        "ru": "gpu: драйвер снизил частоту: {reason}",
    },
    advice={
        "en": "Let the GPU cool down, raise its power limit, and measure again.",
        "ru": "Дайте GPU остыть, поднимите предел мощности и измерьте снова.",
    },
)
CPU_LIMIT = CautionKind(
    "cpu_limit",
    short={"en": "the container's CPU time was used up", "ru": "процессорное время контейнера кончалось"},
    message={
        "en": "{group}: all threads were stopped {times} times, as a container or a batch system allows no more time",
        "ru": "{group}: потоки останавливались, раз: {times}; контейнер или пакетная система не даёт больше времени",
    },
    advice={
        "en": "Set --threads {cores}, or give the container more CPU time.",
        "ru": "Задайте --threads {cores} или дайте контейнеру больше процессорного времени.",
    },
)
SLOW_CLOCK = CautionKind(
    "slow_clock",
    short={"en": "the cores ran below their rated clock", "ru": "ядра работали ниже номинальной частоты"},
    message={
        "en": "cpu: after the calls the fastest core ran at {share:.0%} of its rated clock",
        "ru": "cpu: после вызовов самое быстрое ядро работало на {share:.0%} номинальной частоты",
    },
    advice={
        "en": "Plug the machine in, set the frequency governor to performance, and measure again.",
        "ru": "Подключите машину к сети, выберите режим частоты performance и измерьте снова.",
    },
)
BUSY_MACHINE = CautionKind(
    "busy_machine",
    short={"en": "the machine was busy", "ru": "машина была занята другой работой"},
    message={
        "en": "other programs kept {share:.0%} of the cores busy before measuring began",
        "ru": "до начала измерений другие программы занимали {share:.0%} ядер",
    },
    advice={
        "en": "Close other programs and measure again.",
        "ru": "Закройте другие программы и измерьте снова.",
    },
)
BUSY_GPU = CautionKind(
    "busy_gpu",
    short={"en": "the GPU was busy", "ru": "GPU был занят другой работой"},
    message={
        "en": "other programs kept the GPU busy for {share:.0%} of the time before measuring began",
        "ru": "до начала измерений другие программы занимали GPU {share:.0%} времени",
    },
    advice={
        "en": "Wait for them to end (nvidia-smi shows them) and measure again.",
        "ru": "Дождитесь их конца (их показывает nvidia-smi) и измерьте снова.",
    },
)
OVERSUBSCRIBED = CautionKind(
    "oversubscribed",
    short={"en": "more threads than cores", "ru": "потоков больше, чем ядер"},
    message={"en": "{threads} threads share {cores} cores", "ru": "потоков {threads}, а ядер {cores}"},
    advice={"en": "Set --threads to {cores} or less.", "ru": "Задайте --threads не больше {cores}."},
)
EMULATED_PRECISION = CautionKind(
    "emulated_precision",
    short={"en": "the CPU emulates this precision", "ru": "процессор эмулирует эту точность"},
    message={
        "en": "this CPU has no {precision} instructions: it emulates them, slower than float32",
        "ru": "у этого процессора нет инструкций {precision}: он эмулирует их медленнее, чем float32",
    },
    advice={
        "en": "Time this method on a GPU, or on a CPU that has them.",
        "ru": "Измерьте время этого метода на GPU или на процессоре, у которого они есть.",
    },
)
ENERGY_ESTIMATED = CautionKind(
    "energy_estimated",
    short={},  # the number's own name says so
    message={
        "en": "the CPU's energy is estimated from its rated power and its load, not counted",
        "ru": "энергия процессора оценена по его паспортной мощности и загрузке, а не измерена",
    },
    advice={
        "en": "Compare it within one machine only; RAPL counters need read access.",
        "ru": "Сравнивайте её только в пределах одной машины; счётчикам RAPL нужен доступ на чтение.",
    },
)
TINY_QUALITY_SAMPLE = CautionKind(
    "tiny_quality_sample",
    short={"en": "quality stands on few samples", "ru": "качество измерено на малой выборке"},
    message={
        "en": "quality was scored on {samples} samples only",
        "ru": "качество измерено только на {samples} примерах",
    },
    advice={
        "en": "A difference of some points is noise: score more samples.",
        "ru": "Разница в несколько пунктов это шум: возьмите больше примеров.",
    },
)
FEW_FOR_MLPERF = CautionKind(
    "few_for_tail",
    short={},  # a table shows medians
    message={
        "en": "{group}: p{rank} stands on {calls} calls; MLPerf, at 99 % confidence, asks for {least}",
        "ru": "{group}: p{rank} получен из {calls} вызовов; MLPerf с доверием 99 % требует {least}",
    },
    advice={"en": "Ask for more: --iterations {least}.", "ru": "Задайте больше: --iterations {least}."},
)
FEW_FOR_PERCENTILES = CautionKind(
    "few_samples",
    short={"en": "few calls were timed", "ru": "измерено мало вызовов"},
    message={
        "en": "{group}: {calls} calls fitted into the time, too few for a percentile above the median",
        "ru": "{group}: за отведённое время сделано вызовов: {calls}; для процентиля выше медианы этого мало",
    },
    advice={"en": "Allow more time: --max-seconds.", "ru": "Дайте больше времени: --max-seconds."},
)
NOT_SETTLED = CautionKind(
    "not_settled",
    short={
        "en": "the latency did not settle while warming up",
        "ru": "время не установилось при разогреве",
    },
    message={
        "en": "{group}: the latency was not stable after {calls} calls of warm-up",
        "ru": "{group}: время не установилось за {calls} вызовов разогрева",
    },
    advice={
        "en": "Close other programs and measure again.",
        "ru": "Закройте другие программы и измерьте снова.",
    },
)
UNSTABLE = CautionKind(
    "unstable",
    short={"en": "the latency was not stable", "ru": "время было нестабильным"},
    message={
        "en": "{group}: the middle half of the calls spreads over {spread:.0%} of the median",
        "ru": "{group}: средняя половина вызовов разбросана на {spread:.0%} медианы",
    },
    advice={
        "en": "Close other programs, or set --threads 1, and measure again.",
        "ru": "Закройте другие программы или задайте --threads 1 и измерьте снова.",
    },
)
DRIFT = CautionKind(
    "drift",
    short={"en": "the latency drifted", "ru": "время постепенно менялось"},
    message={
        "en": "{group}: the second half of the calls took {change:.0%} {direction} time",
        "ru": "{group}: вторая половина вызовов заняла на {change:.0%} {direction} времени",
    },
    advice={
        "en": "The machine warms up, throttles, or others work on it: measure again.",
        "ru": "Машина греется, снижает частоту или занята другими: измерьте снова.",
    },
)
_MORE, _LESS = {"en": "more", "ru": "больше"}, {"en": "less", "ru": "меньше"}


def timing(seen: Timing, group: str) -> list[Caution]:
    """Judge the latency samples of one launch: not settled, spread out, drifting."""
    return [*_unsettled(seen, group), *_spread(seen.wall_ms, group), *_drift(seen, group)]


def few(calls: int, group: str) -> list[Caution]:
    """Judge how many calls were timed in all launches together."""
    for rank, least in MLPERF_COUNTS.items():
        if carries(calls, rank) and calls < least:
            return [FEW_FOR_MLPERF.of(group=group, rank=rank, calls=calls, least=least)]
    if not carries(calls, min(MLPERF_COUNTS)):
        return [FEW_FOR_PERCENTILES.of(group=group, calls=calls)]
    return []


def usage(used: Usage, calls: int, threads: int, group: str) -> list[Caution]:
    """Judge what the timed calls cost: interference, allocation, swapping, throttling, a container's limit of time.

    Args:
        used: what the calls used together.
        calls: how many calls there were.
        threads: threads that the library may use.
        group: `cpu` or `gpu`.
    """
    found = []
    per_second = used.switches / used.wall_s / threads
    share = used.cpu_s / (used.wall_s * threads)
    if group == "cpu" and per_second > _SWITCHES_PER_SECOND and share < _IDLE_SHARE:
        found.append(INTERFERENCE.of(per_second=per_second, share=share))
    if used.minor_faults * _FAULT_SECONDS > _FAULT_SHARE * used.wall_s:
        found.append(PAGE_FAULTS.of(group=group, pages=used.minor_faults / calls))
    if used.major_faults > calls:
        found.append(SWAPPING.of(group=group, pages=used.major_faults / calls))
    if used.throttled:
        found.append(THROTTLED.of(group=group, times=used.throttled))
    if used.stopped:
        found.append(CPU_LIMIT.of(group=group, times=used.stopped, cores=environment.most_threads()))
    return found


def clock(share: float | None = None, gpu_reason: str = "") -> list[Caution]:
    """Judge the clocks: the CPU's right after the timed calls, the GPU's while they were made.

    Args:
        share: the fastest core's clock over the rated one; None where the kernel does not tell.
        gpu_reason: why the GPU's clock was slowed down; empty when it was not.
    """
    found = []
    if share is not None and share < _SLOW_CLOCK:
        found.append(SLOW_CLOCK.of(share=share))
    if gpu_reason:
        found.append(THROTTLED_GPU.of(reason=gpu_reason))
    return found


def busy(cpu_share: float, gpu_share: float = 0.0) -> list[Caution]:
    """Judge how busy others kept the machine before measuring began.

    Args:
        cpu_share: share of all cores, 0 to 1.
        gpu_share: share of the GPU's time, 0 to 1.
    """
    found = []
    if cpu_share > _BUSY_SHARE:
        found.append(BUSY_MACHINE.of(share=cpu_share))
    if gpu_share > _BUSY_GPU_SHARE:
        found.append(BUSY_GPU.of(share=gpu_share))
    return found


def threads(used: int) -> list[Caution]:
    """Judge the number of threads against the cores that this process may use."""
    cores = environment.most_threads()
    return [OVERSUBSCRIBED.of(threads=used, cores=cores)] if used > cores else []


def precision(dtypes: Collection[str], emulated: Collection[str]) -> list[Caution]:
    """Judge the types of the weights against the precisions that this CPU has no instructions for."""
    return [EMULATED_PRECISION.of(precision=name) for name in emulated if f"torch.{name}" in dtypes]


def energy(seen: Energy) -> list[Caution]:
    """Judge whether the energy was counted."""
    return [ENERGY_ESTIMATED.of()] if seen.cpu_j > 0 and not seen.is_counted else []


def quality(samples: int) -> list[Caution]:
    """Judge the number of scored samples."""
    return [TINY_QUALITY_SAMPLE.of(samples=samples)] if samples < _TINY_SAMPLE else []


def _unsettled(seen: Timing, group: str) -> list[Caution]:
    return [] if seen.settled else [NOT_SETTLED.of(group=group, calls=len(seen.warmup_ms))]


def _spread(wall: Sequence[float], group: str) -> list[Caution]:
    spread = (percentile(wall, 75) - percentile(wall, 25)) / percentile(wall, 50)
    return [UNSTABLE.of(group=group, spread=spread)] if spread > _NOISY_SPREAD else []


def _drift(seen: Timing, group: str) -> list[Caution]:
    """Compare the first half of the calls with the second: their medians' 95 % intervals lie apart."""
    half = len(seen.wall_ms) // 2
    first, second = seen.wall_ms[:half], seen.wall_ms[half:]
    bounds, later = interval(first, 50), interval(second, 50)
    if bounds is None or later is None or (bounds[0] <= later[1] and later[0] <= bounds[1]):
        return []
    change = percentile(second, 50) / percentile(first, 50) - 1
    if abs(change) <= _DRIFT:
        return []
    return [DRIFT.of(group=group, change=abs(change), direction=_MORE if change > 0 else _LESS)]
