"""Judge the readings of the meters: each check is a caution that says what is wrong and what to do about it.

The meters measure and this file judges, so that all thresholds are in one place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mlflow_compress.meters import environment
from mlflow_compress.meters.energy import Energy
from mlflow_compress.meters.latency import Timing
from mlflow_compress.meters.usage import Usage
from mlflow_compress.percentiles import MLPERF_COUNTS, carries, interval, percentile
from mlflow_compress.records import Caution, CautionKind

_NOISY_SPREAD = 0.10  # between the quartiles, relative to the median
_DRIFT = 0.05
_BUSY_SHARE = 0.15  # of all cores, before measuring
_BUSY_GPU_SHARE = 0.05
_SWITCHES_PER_SECOND = 60  # of wall time, per thread: 31 measured on a quiet machine, 96 beside a busy process
_IDLE_SHARE = 0.8  # of wall time times threads; below it our threads waited for something
_FAULT_SECONDS = 1e-6  # to allocate and clear a 4 KiB page: half of that on bare metal, 2.4 times on a virtual machine
_FAULT_SHARE = 0.10
_SLOW_CLOCK = 0.95
_TINY_SAMPLE = 100

INTERFERENCE = CautionKind(
    "interference",
    short={"en": "other programs used the same cores", "ru": "другие программы отнимали ядра"},
    message={
        "en": "cpu: other programs interrupted each thread {per_second:.0f} times a second, and the threads ran only "
        "{share:.0%} of the time",
        "ru": "cpu: другие программы отнимали ядро у каждого потока {per_second:.0f} раз в секунду, потоки работали "
        "{share:.0%} времени",
    },
    advice={
        "en": "Close other programs, or leave them a core: --threads 1. Threads that wait for each other suffer most.",
        "ru": "Закройте другие программы или оставьте им ядро: --threads 1. Больше всего страдают потоки, которые ждут "
        "друг друга.",
    },
)
PAGE_FAULTS = CautionKind(
    "page_faults",
    short={"en": "much time went into allocating memory", "ru": "много времени ушло на выделение памяти"},
    message={
        "en": "{group}: each call requests {pages:.0f} new memory pages from the kernel, which takes more than a tenth "
        "of its time",
        "ru": "{group}: каждый вызов заново получает от ядра системы {pages:.0f} страниц памяти, это больше десятой "
        "части его времени",
    },
    advice={
        "en": "Try an allocator that keeps freed memory: LD_PRELOAD with jemalloc or tcmalloc.",
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
        "en": "The machine has too little free memory: close other programs, or use a smaller batch.",
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
        "en": "{group}: all threads were paused {times} times because the container or batch system limits CPU time",
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
        "en": "other programs used {share:.0%} of the cores before measuring began",
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
        "en": "this CPU has no {precision} instructions: it emulates them, which is slower than float32",
        "ru": "у этого процессора нет инструкций {precision}: он эмулирует их медленнее, чем float32",
    },
    advice={
        "en": "Measure this method on a GPU, or on a CPU with such instructions.",
        "ru": "Измерьте время этого метода на GPU или на процессоре, у которого они есть.",
    },
)
ENERGY_ESTIMATED = CautionKind(
    "energy_estimated",
    short={},  # the number's own name says so
    message={
        "en": "the CPU's energy is estimated (from its rated power and load, or by macOS), not measured",
        "ru": "энергия процессора оценена (по паспортной мощности и загрузке или средствами macOS), а не измерена",
    },
    advice={
        "en": "Compare it on one machine only. To measure it, allow reading the RAPL counters.",
        "ru": "Сравнивайте её только в пределах одной машины. Чтобы измерить её, откройте доступ к счётчикам RAPL.",
    },
)
TINY_QUALITY_SAMPLE = CautionKind(
    "tiny_quality_sample",
    short={"en": "quality is based on few samples", "ru": "качество измерено на малой выборке"},
    message={
        "en": "quality was scored on only {samples} samples",
        "ru": "качество измерено только на {samples} примерах",
    },
    advice={
        "en": "A difference of a few points is noise: score more samples.",
        "ru": "Разница в несколько пунктов это шум: возьмите больше примеров.",
    },
)
FEW_FOR_MLPERF = CautionKind(
    "few_for_tail",
    short={},  # a table shows medians
    message={
        "en": "{group}: p{rank} is based on {calls} calls; MLPerf, at 99 % confidence, requires {least}",
        "ru": "{group}: p{rank} получен из {calls} вызовов; MLPerf с доверием 99 % требует {least}",
    },
    advice={"en": "Set more calls: --iterations {least}.", "ru": "Задайте больше: --iterations {least}."},
)
FEW_FOR_PERCENTILES = CautionKind(
    "few_samples",
    short={"en": "few calls were timed", "ru": "измерено мало вызовов"},
    message={
        "en": "{group}: only {calls} calls fit into the time, too few for a percentile above the median",
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
        "en": "{group}: the latency was not stable after {calls} warm-up calls",
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
        "en": "The machine warms up, throttles or runs other programs: measure again.",
        "ru": "Машина греется, снижает частоту или занята другой работой: измерьте снова.",
    },
)
_MORE, _LESS = {"en": "more", "ru": "больше"}, {"en": "less", "ru": "меньше"}


def timing(seen: Timing, group: str) -> list[Caution]:
    """Judge the latency samples of one launch: whether they settled, spread or drifted."""
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
    """Judge the resources of the timed calls: interference, allocation, swapping, throttling, a container's CPU limit.

    Args:
        used: Resources of all calls together.
        calls: Number of calls.
        threads: Number of threads that the library may use.
        group: `cpu` or `gpu`.
    """
    cautions = []
    share = used.cpu_s / (used.wall_s * threads)
    if group == "cpu" and used.switches is not None:
        per_second = used.switches / used.wall_s / threads
        if per_second > _SWITCHES_PER_SECOND and share < _IDLE_SHARE:
            cautions.append(INTERFERENCE.of(per_second=per_second, share=share))
    if used.minor_faults is not None and used.minor_faults * _FAULT_SECONDS > _FAULT_SHARE * used.wall_s:
        cautions.append(PAGE_FAULTS.of(group=group, pages=used.minor_faults / calls))
    if used.major_faults is not None and used.major_faults > calls:
        cautions.append(SWAPPING.of(group=group, pages=used.major_faults / calls))
    if used.throttled:
        cautions.append(THROTTLED.of(group=group, times=used.throttled))
    if used.stopped:
        cautions.append(CPU_LIMIT.of(group=group, times=used.stopped, cores=environment.most_threads()))
    return cautions


def clock(share: float | None = None, gpu_reason: str = "") -> list[Caution]:
    """Judge the clocks: the CPU's right after the timed calls, the GPU's during them.

    Args:
        share: Clock of the fastest core relative to the rated clock; None if the kernel does not report it.
        gpu_reason: Why the GPU's clock was slowed down; empty if it was not.
    """
    cautions = []
    if share is not None and share < _SLOW_CLOCK:
        cautions.append(SLOW_CLOCK.of(share=share))
    if gpu_reason:
        cautions.append(THROTTLED_GPU.of(reason=gpu_reason))
    return cautions


def busy(cpu_share: float, gpu_share: float = 0.0) -> list[Caution]:
    """Judge how busy other programs kept the machine before measuring began.

    Args:
        cpu_share: Share of all cores, 0 to 1.
        gpu_share: Share of the GPU's time, 0 to 1.
    """
    cautions = []
    if cpu_share > _BUSY_SHARE:
        cautions.append(BUSY_MACHINE.of(share=cpu_share))
    if gpu_share > _BUSY_GPU_SHARE:
        cautions.append(BUSY_GPU.of(share=gpu_share))
    return cautions


def threads(used: int) -> list[Caution]:
    """Judge the number of threads against the cores that this process may use."""
    cores = environment.most_threads()
    return [OVERSUBSCRIBED.of(threads=used, cores=cores)] if used > cores else []


def precision(dtypes: Collection[str], emulated: Collection[str]) -> list[Caution]:
    """Judge the dtypes of the weights against the precisions that this CPU emulates."""
    return [EMULATED_PRECISION.of(precision=name) for name in emulated if f"torch.{name}" in dtypes]


def energy(seen: Energy) -> list[Caution]:
    """Judge whether the energy was measured or estimated."""
    return [ENERGY_ESTIMATED.of()] if seen.cpu_j > 0 and not seen.is_counted else []


def quality(samples: int) -> list[Caution]:
    """Judge the number of scored samples."""
    return [TINY_QUALITY_SAMPLE.of(samples=samples)] if samples < _TINY_SAMPLE else []


def _unsettled(timing: Timing, group: str) -> list[Caution]:
    return [] if timing.settled else [NOT_SETTLED.of(group=group, calls=len(timing.warmup_ms))]


def _spread(wall: Sequence[float], group: str) -> list[Caution]:
    spread = (percentile(wall, 75) - percentile(wall, 25)) / percentile(wall, 50)
    return [UNSTABLE.of(group=group, spread=spread)] if spread > _NOISY_SPREAD else []


def _drift(timing: Timing, group: str) -> list[Caution]:
    """Compare the first half of the calls with the second: a drift needs 95 % intervals of the medians apart."""
    half = len(timing.wall_ms) // 2
    first, second = timing.wall_ms[:half], timing.wall_ms[half:]
    bounds, later_bounds = interval(first, 50), interval(second, 50)
    if bounds is None or later_bounds is None or (bounds[0] <= later_bounds[1] and later_bounds[0] <= bounds[1]):
        return []
    change = percentile(second, 50) / percentile(first, 50) - 1
    if abs(change) <= _DRIFT:
        return []
    return [DRIFT.of(group=group, change=abs(change), direction=_MORE if change > 0 else _LESS)]
