"""Every text that a table, a page or a picture shows, in English and Russian.

Two kinds of text are elsewhere, next to what they describe: the label of a metric (`metrics/`), and the text of a
caution, where it is raised (`CautionKind`). Messages of the commands and in MLflow are in English only.

Texts with braces are `str.format` templates. All texts are plain; each renderer escapes them for its own format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Text = Mapping[str, str]  # by language

# Names

LANGUAGES = ("en", "ru")
ORIGINAL = "original"
DEVICES: Mapping[str, str] = {"cpu": "CPU", "gpu": "GPU"}
UNITS = {"_per_s": "1/s", "_mib": "MB", "_ms": "ms", "_s": "s", "_j": "J", "_w": "W"}
COMPARISON = {"en": "Comparison", "ru": "Сравнение"}
NOTES = {"en": "Notes", "ru": "Сноски"}
ALL_NUMBERS = {"en": "All numbers", "ru": "Все числа"}
RUN = {"en": "{device} run", "ru": "Запуск, {device}"}

# The cells of the table

ORIGINAL_METHOD = {"en": "original", "ru": "Оригинал"}
BY_HAND = {"en": "by hand", "ru": "вручную"}
PARETO = {False: {"en": "best", "ru": "лучший"}, True: {"en": "dominated", "ru": "хуже других"}}
ON_DISK = {"en": "on disk", "ru": "на диске"}
SCORING = {"en": "quality", "ru": "качество"}
FROM_ORIGINAL = {"en": "difference from the original", "ru": "разница с оригиналом"}
QUANTITIES = {
    "weights": {"en": "weights", "ru": "веса"},
    "disk": {"en": "saved model", "ru": "сохранённая модель"},
    "disk_gzip": {"en": "saved model, compressed", "ru": "сохранённая модель, сжатая"},
    "params": {"en": "parameters", "ru": "параметры"},
    "params_nonzero": {"en": "nonzero parameters", "ru": "ненулевые параметры"},
    "macs": {"en": "MACs per sample", "ru": "MAC на пример"},
    "seconds": {"en": "time, s", "ru": "время, с"},
    "latency": {"en": "inference time", "ru": "время инференса"},
    "throughput": {"en": "throughput", "ru": "пропускная способность"},
    "load": {"en": "load time", "ru": "время загрузки"},
    "requests_per_second": {"en": "requests per second", "ru": "запросов в секунду"},
    "errors": {"en": "share of errors", "ru": "доля ошибок"},
    "first_call": {
        "en": "first call, including compilation",
        "ru": "первый вызов вместе с компиляцией",
    },
    "ram_peak": {"en": "peak RAM", "ru": "пик RAM"},
    "ram_model": {"en": "peak RAM minus that of an empty process", "ru": "пик RAM без пустого процесса"},
    "vram_peak": {"en": "peak VRAM", "ru": "пик VRAM"},
    "energy_per_item": {"en": "energy per sample", "ru": "энергия на пример"},
    "energy_per_item_estimated": {
        "en": "energy per sample, estimated",
        "ru": "энергия на пример, оценка",
    },
    "cpu_energy_per_item": {
        "en": "CPU energy per sample in the same run",
        "ru": "энергия процессора на пример в том же запуске",
    },
    "cpu_energy_per_item_estimated": {
        "en": "CPU energy per sample in the same run, estimated",
        "ru": "энергия процессора на пример в том же запуске, оценка",
    },
}
GROUPS: Mapping[str, Text] = {
    "prepare": {"en": "compression:", "ru": "сжатие:"},
    "load": {"en": "under load:", "ru": "под нагрузкой:"},
}
STATISTICS = {
    "p50": {"en": "median", "ru": "медиана"},
    "mean": {"en": "mean", "ru": "среднее"},
    "min": {"en": "minimum", "ru": "минимум"},
    "max": {"en": "maximum", "ru": "максимум"},
    "stderr": {"en": "standard error", "ru": "стандартная ошибка"},
    "std": {"en": "standard deviation", "ru": "стандартное отклонение"},
}
DIVIDED_BY_ORIGINAL = {"en": "relative to the original", "ru": "относительно оригинала"}
HEADERS: Mapping[str, Text] = {
    "team": {"en": "Team", "ru": "Команда"},
    "model": {"en": "Model", "ru": "Модель"},
    "method": {"en": "Method", "ru": "Метод"},
    "size/weights_mib": {"en": "Weight size", "ru": "Размер весов"},
    "cpu/latency_p50_ms": {"en": "CPU ms", "ru": "Время инференса (CPU, ms)"},
    "gpu/latency_p50_ms": {"en": "GPU ms", "ru": "Время инференса (GPU, ms)"},
    "cpu/ram_peak_mib": {"en": "RAM (MB)", "ru": "Использование RAM (MB)"},
    "gpu/vram_peak_mib": {"en": "VRAM (MB)", "ru": "Использование VRAM (MB)"},
    "quality": {"en": "Quality", "ru": "Качество"},
    "hardware": {"en": "Hardware", "ru": "Железо"},
    "pareto": {"en": "Pareto", "ru": "Парето"},
}
# For the page, where columns are narrow and units are above the numbers. A tooltip shows the full header.
SHORT_HEADERS: Mapping[str, Text] = {
    "size/weights_mib": {"en": "Weights, MB", "ru": "Веса, MB"},
    "cpu/latency_p50_ms": {"en": "CPU, ms", "ru": "CPU, ms"},
    "gpu/latency_p50_ms": {"en": "GPU, ms", "ru": "GPU, ms"},
    "cpu/ram_peak_mib": {"en": "RAM, MB", "ru": "RAM, MB"},
    "gpu/vram_peak_mib": {"en": "VRAM, MB", "ru": "VRAM, MB"},
}
# Numbers that a variant has besides its scores: how far its outputs or answers are from the original's.
FIDELITY: Mapping[str, Text] = {
    "quality/top1_agreement": {"en": "agreement with the original", "ru": "совпадение с оригиналом"},
    "quality/output_error_rel_l2": {"en": "output error", "ru": "ошибка выходов"},
    "quality/kl_divergence_nats": {
        "en": "KL divergence from the original, nats",
        "ru": "KL-дивергенция от оригинала, нат",
    },
    "quality/kl_divergence_reverse_nats": {
        "en": "reverse KL divergence, nats",
        "ru": "обратная KL-дивергенция, нат",
    },
    "quality/kl_divergence_lower_bound_nats": {
        "en": "KL divergence from the original, at least, nats",
        "ru": "KL-дивергенция от оригинала, не меньше, нат",
    },
    "quality/kl_divergence_reverse_lower_bound_nats": {
        "en": "reverse KL divergence, at least, nats",
        "ru": "обратная KL-дивергенция, не меньше, нат",
    },
    "quality/flips": {"en": "share of samples with another score", "ru": "доля примеров с другой оценкой"},
    "quality/samples_worse": {"en": "samples that became worse", "ru": "примеров стало хуже"},
    "quality/samples_better": {"en": "samples that became better", "ru": "примеров стало лучше"},
}
CHANGED_SAMPLES = {"en": "{worse} worse, {better} better", "ru": "хуже {worse}, лучше {better}"}
SCORED_SAMPLES = {"en": "scored samples", "ru": "оценено примеров"}


# Below the table: the legend, summaries and failures

LEGEND = {
    "en": "MB is 2^20 bytes. A time is the median of one call on one batch; RAM and VRAM are peaks. "
    "(0.50x) is the value divided by the original's: below 1 is smaller or faster. (-0.012) after a score is its "
    "difference from the original's on the same samples. ≈ marks differences that noise may explain: all times and "
    "scores of the table are tested together, so that the chance of any false claim is at most 5 % (Holm's "
    "procedure); RAM and VRAM repeat within 1 %. A 95 % interval, where one is shown, applies to its own number only.",
    "ru": "MB = 2^20 байт. Время: медиана одного вызова на одном батче; RAM и VRAM: пиковые значения. "
    "(0.50x): значение, делённое на значение оригинала: меньше 1 значит меньше или быстрее. (-0.012) у метрики "
    "качества: разница с оригиналом на тех же примерах. ≈ отмечает то, что может объясняться шумом: времена и качество "
    "оцениваются все вместе, вероятность хотя бы одного ложного вывода в таблице не больше 5 % (поправка Холма); RAM и "
    "VRAM повторяются с точностью 1 %. 95 % интервал, где он показан, относится только к своему числу.",
}
LEGEND_UNKNOWN = {
    "en": "{metrics}: noise unknown; these ratios prove nothing.",
    "ru": "{metrics}: шум неизвестен; эти отношения ничего не доказывают.",
}
LEGEND_BY_HAND = {
    "en": "By hand: copied from a hand-made table, not measured by this tool.",
    "ru": "Вручную: переписано из таблицы, сделанной вручную, а не измерено этим инструментом.",
}
LEGEND_HEADLINE = {
    "en": "Where a row has several scores, the first one decides: {metrics}.",
    "ru": "Если метрик качества несколько, решает первая: {metrics}.",
}
LEGEND_PARETO = {
    "en": "Pareto: a row is dominated if another one is as good in all of these numbers, and better in one by more "
    "than noise: {objectives}. A number with unknown noise does not separate rows.",
    "ru": "Парето: «хуже других» значит, что другая строка не хуже по всем этим показателям и лучше по одному больше, "
    "чем на шум: {objectives}. Число, шум которого неизвестен, строк не различает.",
}
SOURCE = {"en": "Experiment", "ru": "Эксперимент"}
SUMMARIES = {"en": "Over all models", "ru": "По всем моделям"}
OVER_MODELS = {"en": "{summary}, over {models} models", "ru": "{summary}; моделей: {models}"}
ROWS_BEHIND = {"en": " ({rows} rows)", "ru": " (строк: {rows})"}
NOISE_UNKNOWN = {"en": "noise unknown", "ru": "шум неизвестен"}
OF_MODELS = {"en": "{models} models", "ru": "моделей: {models}"}
OF_ONE_MODEL = {"en": "1 model", "ru": "моделей: 1"}
FASTER = {"en": "{times}x faster", "ru": "в {times} раза быстрее"}
SLOWER = {"en": "{times}x slower", "ru": "в {times} раза медленнее"}
AS_FAST = {"en": "as fast", "ru": "так же быстро"}
IN_PROGRESS = "in_progress"  # the status of a run that has no result yet
FAILURES: Mapping[bool, Text] = {  # by whether a run is in progress
    False: {"en": "Failed or skipped", "ru": "Не удалось или пропущено"},
    True: {"en": "Failed, skipped or in progress", "ru": "Не удалось, пропущено или выполняется"},
}
STATUS = {
    "failed": {"en": "failed", "ru": "не удалось"},
    "skipped": {"en": "skipped", "ru": "пропущено"},
    IN_PROGRESS: {"en": "in progress", "ru": "выполняется"},
}
NO_REASON = {"en": "no reason was recorded", "ru": "причина не записана"}
SMALLER: Mapping[str, Text] = {
    "size/weights_mib": {"en": "{ratio} size", "ru": "размер {ratio}"},
    "size/disk_mib": {"en": "{ratio} on disk", "ru": "на диске {ratio}"},
    "cpu/ram_peak_mib": {"en": "{ratio} RAM", "ru": "RAM {ratio}"},
    "gpu/vram_peak_mib": {"en": "{ratio} VRAM", "ru": "VRAM {ratio}"},
}


# Footnotes

FOOTNOTES = {
    "random": {
        "en": "random weights: size, latency and memory are true, quality was not measured",
        "ru": "случайные веса: размер, время и память настоящие, качество не измерялось",
    },
    "partly_random": {
        "en": "random weights in the {about} run: its latency and memory are true, the quality is from another run",
        "ru": "случайные веса в запуске на {about}: его время и память настоящие, качество из другого запуска",
    },
    "caution": {"en": "caution: {about}", "ru": "осторожно: {about}"},
    "hardware": {
        "en": "{about}: not compared with the original, which was measured under different conditions ({details})",
        "ru": "{about}: не сравнивается с оригиналом, он измерен в других условиях ({details})",
    },
    "measure_again": {
        "en": "{about}: not compared with the original, because an earlier version did not record all conditions: "
        "measure {details} again",
        "ru": "{about}: не сравнивается с оригиналом: более ранняя версия записала не все условия, измерьте заново "
        "{details}",
    },
    "other_memory": {
        "en": "VRAM: not compared with the original, because torch's allocator sees only its own memory",
        "ru": "VRAM: не сравнивается с оригиналом: аллокатор torch видит только свою память",
    },
    "contradiction": {
        "en": "{about}: the ratio logged as measured in turns ({details}) contradicts the two times",
        "ru": "{about}: записанное отношение ({details}) противоречит самим временам",
    },
    "not_believed": {
        "en": "{about}: an impossible ratio is not shown",
        "ru": "{about}: невозможное отношение не показано",
    },
    "one_launch": {"en": "one launch: noise unknown", "ru": "один запуск: шум неизвестен"},
    "two_launches": {"en": "two launches: noise unknown", "ru": "два запуска: шум неизвестен"},
    "few_of_original": {
        "en": "the original was launched fewer than three times: noise unknown",
        "ru": "у оригинала меньше трёх запусков: шум неизвестен",
    },
    "unknown_noise": {
        "en": "the spread of its launches was not recorded: noise unknown",
        "ru": "разброс запусков не записан: шум неизвестен",
    },
    "score_noise": {
        "en": "{details}: the noise of the difference is unknown",
        "ru": "{details}: шум разницы неизвестен",
    },
    "difference": {"en": "{what}: {own}, the original's: {other}", "ru": "{what}: {own}, у оригинала: {other}"},
    "published_differs": {
        "en": "the original's score differs from the published one (another protocol?): {details}",
        "ru": "оценка оригинала отличается от опубликованной (другой протокол?): {details}",
    },
    "published_same": {
        "en": "the original's score is as published: {details}",
        "ru": "оценка оригинала совпадает с опубликованной: {details}",
    },
    "published_apart": {
        "en": "the original's score can't be compared with the published one: {details}",
        "ru": "оценку оригинала нельзя сравнить с опубликованной: {details}",
    },
    "unknown": {"en": "unknown", "ru": "неизвестно"},
    "other_team": {
        "en": "compared with the original of team {about}",
        "ru": "сравнивается с оригиналом команды {about}",
    },
    "baseline": {
        "en": "compared with the original of {about}, as requested",
        "ru": "по запросу сравнивается с оригиналом {about}",
    },
    "baseline_run": {
        "en": "compared with run {about}, as requested",
        "ru": "по запросу сравнивается с запуском {about}",
    },
    "no_baseline": {
        "en": "nothing to compare with: {about} was not measured at this batch size",
        "ru": "не с чем сравнивать: {about} не измерено с этим размером батча",
    },
    "other_precision": {
        "en": "made from weights in {about}, but compared with an original in {details}",
        "ru": "сделано из весов в {about}, а сравнивается с оригиналом в {details}",
    },
    "no_original_in_table": {
        "en": "its table has no original of this model, so there is nothing to compare with",
        "ru": "в его таблице нет оригинала этой модели, сравнивать не с чем",
    },
    "no_original": {
        "en": "no original of this model was measured, so there is nothing to compare with",
        "ru": "оригинал этой модели не измерен, сравнивать не с чем",
    },
    IN_PROGRESS: {
        "en": "the run has not ended yet; if it was killed, compress-bench sync on its machine records that",
        "ru": "запуск ещё не завершён; если его прервали, это отметит compress-bench sync на той же машине",
    },
    "no_result": {"en": "the run ended without a result", "ru": "запуск завершился без результата"},
    "no_numbers": {"en": "the run has no numbers", "ru": "в запуске нет чисел"},
}
PUBLISHED = {
    "en": "{metric} {own}, published {published} ({source})",
    "ru": "{metric} {own}, опубликовано {published} ({source})",
}
PUBLISHED_APART = {
    "other_data": {
        "en": "{metric} {published} ({source}) is on {data}",
        "ru": "{metric} {published} ({source}) измерено на {data}",
    },
    "not_scored": {
        "en": "{metric} {published} ({source}) was not scored here",
        "ru": "{metric} {published} ({source}) здесь не измерялось",
    },
}
AND_MORE = {"en": "and {count} more", "ru": "и ещё {count}"}
OLDER = {True: {"en": "this row", "ru": "эту строку"}, False: {"en": "the original", "ru": "оригинал"}}
# Conditions that must be equal before two numbers of a device may be divided: the tag (after `compress.env.`;
# `compress.work`) and its name.
_OF_ANY_DEVICE: Mapping[str, Text] = {
    "torch": {"en": "torch", "ru": "torch"},
    "runtime": {"en": "runtime", "ru": "среда выполнения"},
    "work": {"en": "one call", "ru": "один вызов"},
}
CIRCUMSTANCES: Mapping[str, Mapping[str, Text]] = {
    "cpu": {
        "cpu_model": {"en": "processor", "ru": "процессор"},
        "threads": {"en": "threads", "ru": "потоков"},
        "cores": {"en": "cores allowed", "ru": "доступно ядер"},
        "cpu_flags": {"en": "CPU instructions", "ru": "инструкции процессора"},
        **_OF_ANY_DEVICE,
    },
    "gpu": {
        "gpu_model": {"en": "GPU", "ru": "GPU"},
        "gpu_power_limit_w": {"en": "power limit, W", "ru": "предел мощности, Вт"},
        "gpu_tf32": {"en": "TF32", "ru": "TF32"},
        **_OF_ANY_DEVICE,
    },
}
THREADS = {"en": "{count} threads", "ru": "потоков: {count}"}
HARDWARE: Mapping[str, tuple[str, ...]] = {"cpu": ("cpu_model", "threads"), "gpu": ("gpu_model",)}  # of these, shown
AS_GOOD = {
    "en": "not distinguishable from this row: {methods}",
    "ru": "не удалось отличить от этой строки: {methods}",
}
NOT_RANKED = {
    "en": "not ranked: it is unknown whether more or less {metric} is better",
    "ru": "не сравнивается по качеству: неизвестно, больше или меньше {metric} лучше",
}
# Cautions of version 0.1, by code: its runs keep only the code. Runs of later versions include the texts.
CAUTIONS_OF_0_1: Mapping[str, Mapping[str, str]] = {
    "busy_gpu": {"en": "the GPU was busy", "ru": "GPU был занят другой работой"},
    "busy_machine": {"en": "the machine was busy", "ru": "машина была занята другой работой"},
    "cut_sounds": {"en": "long sounds were cut", "ru": "длинные записи обрезаны"},
    "drift": {"en": "the latency drifted", "ru": "время постепенно менялось"},
    "emulated_precision": {"en": "the CPU emulates this precision", "ru": "процессор эмулирует эту точность"},
    "energy_estimated": {},
    "example_calibration": {"en": "calibrated on one example", "ru": "калибровка на одном примере"},
    "few_samples": {"en": "few calls were timed", "ru": "измерено мало вызовов"},
    "interference": {"en": "other programs used the same cores", "ru": "другие программы отнимали ядра"},
    "notebook": {"en": "measured in a notebook", "ru": "измерено в блокноте"},
    "not_settled": {"en": "the latency did not settle while warming up", "ru": "время не установилось при разогреве"},
    "oversubscribed": {"en": "more threads than cores", "ru": "потоков больше, чем ядер"},
    "page_faults": {"en": "much time went into allocating memory", "ru": "много времени ушло на выделение памяти"},
    "partly_random_weights": {
        "en": "some weights are random, so quality means little",
        "ru": "часть весов случайна, качество мало что значит",
    },
    "random_calibration": {"en": "calibrated on random inputs", "ru": "калибровка на случайных входах"},
    "random_weights": {},
    "scoring_cut": {"en": "not all samples were scored", "ru": "качество измерено не на всех примерах"},
    "skipped_samples": {"en": "some samples could not be read", "ru": "часть примеров не прочитана"},
    "slow_clock": {"en": "the cores ran below their rated clock", "ru": "ядра работали ниже номинальной частоты"},
    "swapping": {"en": "the machine was swapping", "ru": "машина обращалась к подкачке"},
    "throttled": {"en": "the clock was slowed down", "ru": "частота была снижена"},
    "tiny_quality_sample": {"en": "quality is based on few samples", "ru": "качество измерено на малой выборке"},
    "uncalibrated_layers": {"en": "some layers were compressed without data", "ru": "часть слоёв сжата без данных"},
    "unstable": {"en": "the latency was not stable", "ru": "время было нестабильным"},
}

# The page, its script, and the picture

PAGE = {
    "en": {
        "rows": "Rows: {count}",
        "teams": "teams: {count}",
        "models": "models: {count}",
        "methods": "methods: {count}",
        "skip": "Skip to the table",
        "table": "All rows",
        "no_rows": "There are no rows yet: no variant has been measured.",
        "caption": "Each row: one team's model under one method. Bold methods are the originals.",
        "legend": "How to read it",
        "runs": "Runs",
        "run": "{device} run of {name}",
    },
    "ru": {
        "rows": "Строк: {count}",
        "teams": "команд: {count}",
        "models": "моделей: {count}",
        "methods": "методов: {count}",
        "skip": "К таблице",
        "table": "Все строки",
        "no_rows": "Строк ещё нет: ни один вариант не измерен.",
        "caption": "Строка: модель одной команды с одним методом. Жирным выделены оригиналы.",
        "legend": "Как читать",
        "runs": "Запуски",
        "run": "Запуск на {device}: {name}",
    },
}
PAGE_SCRIPT: Mapping[str, Mapping[str, Any]] = {
    "en": {
        "filters": "Filters",
        "scatter": "Trade-offs",
        "bars_title": "Relative to the original",
        "themes": {"auto": "Theme: automatic", "light": "Theme: light", "dark": "Theme: dark"},
        "sort": "Sort by this column",
        "search": "Search",
        "all": "all",
        "none": "(no name)",
        "team": "Team",
        "model": "Model",
        "method": "Method",
        "hardware": "Hardware",
        "reset": "Show all",
        "count": "{shown} of {all} rows are selected, also in the charts.",
        "more": "The first {shown} of {all} rows are listed: list all",
        "as_measured": "As measured",
        "against": "Relative to the original",
        "x": "Horizontal axis",
        "y": "Vertical axis",
        "colour": "Colour and shape",
        "metric": "Metric",
        "lower": "lower is better",
        "higher": "higher is better",
        "best": "best: no other row is as good in both, and better in one by more than noise",
        "dominated": "beaten: another row is as good in both, and better in one by more than noise",
        "hollow": "hollow: another row beats it",
        "original": "ringed: the original",
        "by_hand": "dashed ring: by hand, copied from a table",
        "no_points": "None of the rows shown has both numbers.",
        "no_bars": "None of the rows shown has this number and an original to compare with.",
        "points": "{shown} rows have both numbers.",
        "front": "line: no other row is better in both",
        "beaten": "A row is beaten where another one is as good in both numbers, and better in one by more than noise.",
        "fronts": "Each group of comparable rows has its own line: same hardware, and same model or evaluation data; "
        "for rows by hand, same table.",
        "ranked_best": "best: no other row is better in all of the Pareto column's numbers",
        "ranked_dominated": "beaten: another row is as good in all of the Pareto column's numbers and better in one",
        "ranked": "The Pareto column decides which rows are best, over all rows.",
        "no_front": "For these two numbers, no rows are marked as best.",
        "several": "Several models are shown: select one above, or use the numbers relative to the original.",
        "log": "Logarithmic: {axes}.",
        "keys": "Arrow keys go from point to point, Enter finds the row in the table.",
        "bars": "1x is the original; left is less, right is more. ≈ and a dashed bar: within noise.",
        "between": "A thin line is the 95\u00a0% interval.",
        "grey": "Grey: noise unknown.",
        "interval": "95\u00a0%: {low} to {high}",
        "noise_unknown": "noise unknown",
        "left_out": "{count} more rows are not drawn: filter to see them.",
    },
    "ru": {
        "filters": "Фильтры",
        "scatter": "Компромиссы",
        "bars_title": "Относительно оригинала",
        "themes": {"auto": "Тема: авто", "light": "Тема: светлая", "dark": "Тема: тёмная"},
        "sort": "Сортировать по этому столбцу",
        "search": "Поиск",
        "all": "все",
        "none": "(без имени)",
        "team": "Команда",
        "model": "Модель",
        "method": "Метод",
        "hardware": "Железо",
        "reset": "Показать всё",
        "count": "Выбрано строк: {shown} из {all}, на графиках тоже.",
        "more": "Показаны первые {shown} строк из {all}: показать все",
        "as_measured": "Как измерено",
        "against": "Относительно оригинала",
        "x": "По горизонтали",
        "y": "По вертикали",
        "colour": "Цвет и форма",
        "metric": "Показатель",
        "lower": "меньше лучше",
        "higher": "больше лучше",
        "best": "лучший: ни одна строка не лучше его больше, чем на шум",
        "dominated": "хуже других: другая строка не хуже по обоим и лучше по одному больше, чем на шум",
        "hollow": "пустой: есть строка лучше",
        "original": "в кольце: оригинал",
        "by_hand": "в пунктирном кольце: вручную, из таблицы",
        "no_points": "Ни в одной показанной строке нет обоих чисел.",
        "no_bars": "Ни в одной показанной строке нет этого числа вместе с оригиналом.",
        "points": "Строк с обоими числами: {shown}.",
        "front": "линия: по обоим числам лучше нет",
        "beaten": "Строка лучше другой, если она не хуже по обоим числам и лучше по одному больше, чем на шум.",
        "fronts": "У каждой группы сравнимых строк своя линия: то же железо и та же модель или те же данные; "
        "у строк вручную та же таблица.",
        "ranked_best": "лучший: ни одна строка не лучше по всем числам столбца «Парето»",
        "ranked_dominated": "хуже других: другая строка не хуже по всем числам столбца «Парето» и лучше по одному",
        "ranked": "Какие строки лучшие, решает столбец «Парето», по всем строкам.",
        "no_front": "Для этой пары чисел лучшие строки не определяются.",
        "several": "Здесь несколько моделей: выберите одну в фильтрах или числа относительно оригинала.",
        "log": "Логарифмическая шкала: {axes}.",
        "keys": "Стрелки переходят от точки к точке, Enter находит строку в таблице.",
        "bars": "1x: оригинал; слева меньше, справа больше. ≈ и пунктир: в пределах шума.",
        "between": "Тонкая линия: 95\u00a0% интервал.",
        "grey": "Серый: шум неизвестен.",
        "interval": "95\u00a0%: от {low} до {high}",
        "noise_unknown": "шум неизвестен",
        "left_out": "Не показано строк: {count}, сузьте фильтр.",
    },
}
PICTURE: Mapping[str, Mapping[str, str]] = {
    "en": {
        "lower": "lower is better",
        "higher": "higher is better",
        "front": "no other is better in both",
        "dominated": "hollow: another is better",
        "original": "ringed: the original",
        "by_hand": "boxed: by hand, copied from a table",
        "others": "{count} other methods",
        "bars": "{metric}, relative to the original",
        "left_out": "the best {shown} of {all} rows",
        "means": "geometric means over the models",
        "noise": "≈ and hatched: within noise",
        "unknown": "grey: noise unknown",
        "nothing": "No row has numbers for this chart",
        "by_model": "each model is compared only with itself",
    },
    "ru": {
        "lower": "меньше лучше",
        "higher": "больше лучше",
        "front": "лучше по обоим нет",
        "dominated": "пустой: есть лучше",
        "original": "в кольце: оригинал",
        "by_hand": "в рамке: вручную, из таблицы",
        "others": "другие методы: {count}",
        "bars": "{metric}, относительно оригинала",
        "left_out": "лучшие {shown} из {all} строк",
        "means": "средние геометрические по моделям",
        "noise": "≈ и штриховка: в пределах шума",
        "unknown": "серый: шум неизвестен",
        "nothing": "Ни в одной строке нет чисел для этого графика",
        "by_model": "каждая модель сравнивается только с собой",
    },
}
SERVER_PAGES = {
    "en": {
        "title": "Comparisons",
        "name": "Experiment",
        "runs": "Variants",
        "newest": "Newest, UTC",
        "none": "No experiment that you can read has compress-bench runs yet.",
        "ui": "MLflow",
        "all": "All experiments",
        "experiment": "{name} in MLflow",
        "workspace": "Workspace",
    },
    "ru": {
        "title": "Сравнения",
        "name": "Эксперимент",
        "runs": "Варианты",
        "newest": "Последний, UTC",
        "none": "Ни в одном доступном эксперименте ещё нет запусков compress-bench.",
        "ui": "MLflow",
        "all": "Все эксперименты",
        "experiment": "{name} в MLflow",
        "workspace": "Рабочее пространство",
    },
}


def footnote(name: str, language: str, **values: str) -> str:
    """Return a footnote with its placeholders filled."""
    return FOOTNOTES[name][language].format(**values)
