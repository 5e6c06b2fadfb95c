"""`logged_names`: every metric and tag that a run holds, with its unit and meaning. The reference pages are made of it.

A name in braces stands for several: `{device}` is `cpu` or `gpu`, `{stage}` a part of one call, `{phase}` a part of a
worker's life, `{score}` a quality metric. The other names in braces are free.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlflow_compress import registry
from mlflow_compress.tracking.run_tags import kept_name

STAGES = ("prefill", "token", "decoder", "encoder", "features")
PHASES = ("import", "load", "warmup", "run", "around", "before")
_ALTERNATIVES = {
    "device": ("cpu", "gpu"),
    "stage": STAGES,
    "phase": PHASES,
    "rank": ("90", "95", "99"),
    "end": ("low", "high"),
}
_BRACES = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class LoggedMetric:
    """A metric of a run.

    Attributes:
        name: as MLflow shows it, with braces.
        unit: of its value; empty for a count or a ratio.
        meaning: what it is, in a sentence.
    """

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class LoggedTag:
    """A tag of a run.

    Attributes:
        name: as `compress-report --where` takes it, with braces.
        meaning: what it holds, in a sentence.
    """

    name: str
    meaning: str

    @property
    def is_shown(self) -> bool:
        """Whether MLflow's UI shows the tag. A hidden one is stored with `mlflow.` before its name."""
        return kept_name(self.name) == self.name


METRICS = (
    LoggedMetric("size/weights_mib", "MiB", "Parameters and buffers as the model holds them; tied weights count once."),
    LoggedMetric("size/disk_mib", "MiB", "All files of the saved model."),
    LoggedMetric("size/disk_gzip_mib", "MiB", "The same files, compressed with gzip."),
    LoggedMetric("size/params", "", "Number of parameters; tied weights count once."),
    LoggedMetric("size/params_nonzero", "", "Number of parameters that are not zero."),
    LoggedMetric("size/macs", "", "Multiply-accumulate operations of one forward pass, per sample, by the shapes of "
                 "the layers before quantisation; zeros in dense weights count."),
    LoggedMetric("prepare/seconds", "s", "Time to apply the methods, without loading the original and saving."),
    LoggedMetric("prepare/ram_peak_mib", "MiB", "Highest resident memory of the process while the methods are applied; "
                 "it includes the original."),
    LoggedMetric("{device}/latency_p50_ms", "ms", "Latency of one call on one batch: the geometric mean of the "
                 "launches' medians. `_low` and `_high` are its 95 % interval, from three launches on."),
    LoggedMetric("{device}/latency_p{rank}_ms", "ms", "A higher percentile of the calls. It is logged only where there "
                 "are enough calls for its 95 % interval (`_low`, `_high`)."),
    LoggedMetric("{device}/latency_p50_{end}_ms", "ms", "Ends of the median's 95 % interval: `low`, `high`."),
    LoggedMetric("{device}/latency_p{rank}_{end}_ms", "ms", "Ends of a percentile's 95 % interval: `low`, `high`."),
    LoggedMetric("{device}/latency_mean_ms", "ms", "Mean of all timed calls."),
    LoggedMetric("{device}/latency_min_ms", "ms", "Shortest timed call."),
    LoggedMetric("{device}/latency_max_ms", "ms", "Longest timed call."),
    LoggedMetric("{device}/latency_count", "", "Number of timed calls."),
    LoggedMetric("{device}/latency_launch_sd", "", "Spread between launches: the standard deviation of the logarithms "
                 "of their medians."),
    LoggedMetric("{device}/latency_events_p50_ms", "ms", "Median latency by the events of CUDA or XPU."),
    LoggedMetric("{device}/latency_ratio", "", "Latency divided by the original's, both measured in turns."),
    LoggedMetric("{device}/latency_ratio_{end}", "", "Ends of its 95 % interval: `low`, `high`."),
    LoggedMetric("{device}/{stage}_p50_ms", "ms", "Median latency of one stage of the call."),
    LoggedMetric("{device}/{stage}_ratio", "", "Latency of a stage divided by the original's, both measured in turns."),
    LoggedMetric("{device}/first_call_ms", "ms", "First call, with everything that is compiled in it."),
    LoggedMetric("{device}/load_ms", "ms", "Time to restore the saved model."),
    LoggedMetric("{device}/launches", "", "Number of fresh processes that shared the timed calls."),
    LoggedMetric("{device}/pairs", "", "Number of launches that ran in turns with a launch of the original."),
    LoggedMetric("{device}/rounds", "", "Number of rounds in which the variant and its original took turns."),
    LoggedMetric("{device}/warmup_count", "", "Number of calls before the timed ones."),
    LoggedMetric("{device}/throughput_per_s", "1/s", "Samples per second, over all timed calls."),
    LoggedMetric("{device}/tokens_per_s", "1/s", "New tokens per second of the whole call."),
    LoggedMetric("{device}/decode_tokens_per_s", "1/s", "New tokens per second after the first token."),
    LoggedMetric("{device}/prefill_tokens_per_s", "1/s", "Prompt tokens per second until the first new token."),
    LoggedMetric("{device}/real_time_factor", "", "Time to transcribe divided by the length of the sound."),
    LoggedMetric("{device}/real_time_factor_estimated", "", "The same, where a whole transcript is estimated from the "
                 "tokens that were timed."),
    LoggedMetric("{device}/real_time_factor_scored", "", "Time to transcribe all scored sounds, with reading their "
                 "files, divided by their length."),
    LoggedMetric("{device}/ram_peak_mib", "MiB", "Highest resident memory of the whole process."),
    LoggedMetric("{device}/ram_baseline_mib", "MiB", "Resident memory of the process after its imports."),
    LoggedMetric("{device}/ram_model_mib", "MiB", "`ram_peak_mib` minus `ram_baseline_mib`."),
    LoggedMetric("{device}/ram_peak_{phase}_mib", "MiB", "Highest resident memory in one phase of the process."),
    LoggedMetric("gpu/vram_peak_mib", "MiB", "Peak GPU memory; the tag `compress.vram_source` says who reports it."),
    LoggedMetric("gpu/vram_process_mib", "MiB", "GPU memory that the driver, or Metal, counts for the process."),
    LoggedMetric("gpu/vram_reserved_peak_mib", "MiB", "Peak memory that torch's allocator reserved."),
    LoggedMetric("gpu/vram_device_mib", "MiB", "GPU memory in use by all processes."),
    LoggedMetric("{device}/energy_per_item_j", "J", "Energy per sample, from the counters of that device."),
    LoggedMetric("{device}/energy_per_item_estimated_j", "J", "Energy per sample, estimated from the CPU's rated power "
                 "and load, or on Apple silicon by powermetrics."),
    LoggedMetric("gpu/cpu_energy_per_item_j", "J", "Energy per sample that the CPU took during a GPU run."),
    LoggedMetric("gpu/cpu_energy_per_item_estimated_j", "J", "The same, estimated."),
    LoggedMetric("{device}/cpu_time_share", "", "CPU time divided by wall time and number of threads."),
    LoggedMetric("{device}/context_switches_per_call", "", "Times per call that other programs interrupted the "
                 "process."),
    LoggedMetric("{device}/page_faults_per_call", "", "Minor page faults per call."),
    LoggedMetric("load/requests_per_second", "1/s", "Requests per second that a service answered without an error, "
                 "under the load in the tag `compress.load`."),
    LoggedMetric("load/p50_ms", "ms", "Median latency of these requests; with a rate, from the intended arrival."),
    LoggedMetric("load/p95_ms", "ms", "Their 95th percentile, where there are enough requests for its 95 % interval."),
    LoggedMetric("load/p99_ms", "ms", "Their 99th percentile, likewise."),
    LoggedMetric("load/errors", "", "Share of the requests under load that failed."),
    LoggedMetric("quality/samples", "", "Number of scored samples."),
    LoggedMetric("quality/output_error_rel_l2", "", "Distance between the outputs of the variant and of its original "
                 "on the same random inputs: 2-norm of the difference divided by that of the original's outputs."),
    LoggedMetric("quality/top1_agreement", "", "Share of scored samples where the variant and its original choose the "
                 "same class; for language models, share of scored tokens with the same likeliest token. Without "
                 "scores: share of positions in the outputs for the same random inputs."),
    LoggedMetric("quality/kl_divergence_nats", "nats", "Mean over the same samples or positions of "
                 "KL(original || variant), the divergence of the variant's probabilities of classes."),
    LoggedMetric("quality/kl_divergence_reverse_nats", "nats", "Mean over the scored samples of "
                 "KL(variant || original)."),
    LoggedMetric("quality/kl_divergence_lower_bound_nats", "nats", "Mean over the first 4,096 scored tokens of a lower "
                 "bound of KL(original || variant): each model keeps its 64 likeliest tokens, and the tokens that are "
                 "not kept by both are merged into 64 bins."),
    LoggedMetric("quality/kl_divergence_reverse_lower_bound_nats", "nats", "The same for KL(variant || original)."),
    LoggedMetric("quality/flips", "", "Share of scored samples whose score is not the original's: for an accuracy, "
                 "answers that became wrong or right. The artifact `flips.json` lists them."),
    LoggedMetric("quality/samples_worse", "", "Number of scored samples that became worse (wrong)."),
    LoggedMetric("quality/samples_better", "", "Number of scored samples that became better (right)."),
    LoggedMetric("quality/{score}", "", "Score of a quality metric."),
    LoggedMetric("quality/{score}_{end}", "", "Ends of its 95 % interval: `low`, `high`."),
    LoggedMetric("quality/{score}_stderr", "", "Standard error of the score of a task of lm-eval."),
    LoggedMetric("quality/{score}_samples", "", "Number of samples of a task of lm-eval."),
    LoggedMetric("quality/{score}_difference", "", "Score minus the original's score on the same samples."),
    LoggedMetric("quality/{score}_difference_{end}", "", "Ends of that difference's 95 % interval: `low`, `high`."),
)  # fmt: skip

TAGS = (
    LoggedTag("team", "Whose row it is."),
    LoggedTag("model", "The model's name in the table."),
    LoggedTag("method", "The chain of methods, or the name that a recipe gives it."),
    LoggedTag("status", "`ok`, `skipped` or `failed`."),
    LoggedTag("compress.role", "What the run is: `variant`, `sweep`, `evaluations` or `comparison`."),
    LoggedTag("compress.outcome.cpu", "How measuring on the CPU ended: `ok`, `skipped` or `failed`."),
    LoggedTag("compress.outcome.gpu", "The same for the GPU."),
    LoggedTag("compress.outcome.quality", "The same for scoring."),
    LoggedTag("compress.reason", "Why the variant was skipped or failed."),
    LoggedTag("compress.reason.{part}", "The same for one part: `cpu`, `gpu` or `quality`."),
    LoggedTag("compress.cautions", "Identifiers of the cautions, separated by commas."),
    LoggedTag("compress.caution.{number}", "Text of one caution in every language, as JSON."),
    LoggedTag("compress.not_logged", "Which files the server refused, and why."),
    LoggedTag("compress.schema", "Version of the layout of `result.json`."),
    LoggedTag("compress.version", "Version of mlflow-compress."),
    LoggedTag("compress.family", "The family that handled the model."),
    LoggedTag("compress.weights", "`pretrained`, `random`, `local` or another source."),
    LoggedTag("compress.dtype", "Precision in which the original was loaded."),
    LoggedTag("compress.batch_size", "Samples in one timed call."),
    LoggedTag("compress.setting", "What else distinguishes the row: `tokens=64`, `threads=1`."),
    LoggedTag("compress.original", "`yes` for a row that others are compared with, else `no`."),
    LoggedTag("compress.timed", "What the timed call contains, in words."),
    LoggedTag("compress.work", "Digest of what one timed call does, and the same in words. Latencies are compared "
              "only where it agrees. Numbers with a fraction are `float` in any precision."),
    LoggedTag("compress.seconds", "How long the variant took, in seconds."),
    LoggedTag("compress.launches", "Number of launches that shared the timed calls, where that was decided."),
    LoggedTag("compress.memory_source", "How the RAM peak was found: `kernel`, `sampled every 2 ms`, both, or "
              "`none` for a service."),
    LoggedTag("compress.read_again", "Weight files that `model()` of your own file reads again at each restore."),
    LoggedTag("compress.vram_source", "Who reports `gpu/vram_peak_mib`: `allocator` (torch) or `driver`."),
    LoggedTag("compress.load", "The load on a service: pattern, rate or callers, and duration."),
    LoggedTag("compress.kernel.{device}", "Kernel that multiplied the packed weights."),
    LoggedTag("compress.data", "The data that quality was scored on, as it was requested."),
    LoggedTag("compress.data_name", "Name of the data set."),
    LoggedTag("compress.data_source", "Where the data set comes from."),
    LoggedTag("compress.data_digest", "Digest of the scored samples."),
    LoggedTag("compress.protocol.{score}", "How a metric was computed."),
    LoggedTag("compress.metric.{score}", "Label, scale, direction and rank of a metric, as JSON."),
    LoggedTag("compress.published.{score}", "Of an original: its score compared with a published one, as JSON: "
              "`verdict` (`as published`, `differs` or `not comparable`), `published`, `own`, `source`, `reason`."),
    LoggedTag("compress.significant.{score}", "`yes` where the difference's 95 % interval excludes 0, else `no`."),
    LoggedTag("compress.unpaired", "Why no difference from the original's score was computed."),
    LoggedTag("compress.native_flavor", "MLflow flavor that also loads the logged model, or `none` and the reason."),
    LoggedTag("compress.result_id", "Identifier of the result; each is logged once."),
    LoggedTag("compress.variant_digest", "Digest of the variant; a sweep skips what it finds."),
    LoggedTag("compress.process", "Process that logs the run."),
    LoggedTag("compress.logged", "`complete` when everything is there."),
    LoggedTag("compress.source", "`imported` for a row of a hand-made table."),
    LoggedTag("compress.imported.from", "File of the imported table."),
    LoggedTag("compress.imported.line", "Line of the imported row."),
    LoggedTag("compress.imported.remarks", "What the import could not read or doubts."),
    LoggedTag("compress.import_id", "Digest of the imported row's text."),
    LoggedTag("compress.table", "Fingerprint of the imported table: only rows of one table are compared."),
    LoggedTag("compress.table.name", "Name of the imported table."),
    LoggedTag("compress.cell.{column}", "One cell of the imported row, as it was written."),
    LoggedTag("compress.env.cpu_model", "Processor."),
    LoggedTag("compress.env.cpu_flags", "CPU instructions that kernels use: `avx2`, `avx512_vnni`, `amx_int8`, ..."),
    LoggedTag("compress.env.cores", "Cores that the process may use: its affinity and a container's limit together."),
    LoggedTag("compress.env.threads", "Threads that were set."),
    LoggedTag("compress.env.runtime", "Engine that executes the model, with its version: `torch 2.14.1`, "
              "`onnxruntime 1.32.0`. Two versions of one engine are not compared; two engines are."),
    LoggedTag("compress.env.torch", "Version of torch."),
    LoggedTag("compress.env.gpu_model", "GPU; `(MPS)` or `(XPU)` follows Apple's and Intel's names."),
    LoggedTag("compress.env.gpu_device", "Its kind: `cuda`, `mps` or `xpu`."),
    LoggedTag("compress.env.gpu_power_limit_w", "Power limit that the driver enforces, in watts."),
    LoggedTag("compress.env.gpu_tf32", "What is computed in TF32 although its tensors are float32."),
    LoggedTag("compress.env.gpu_{fact}", "Other facts about it: `driver`, `memory_mib`, `capability`, `fallback`."),
    LoggedTag("compress.env.{fact}", "Other facts about the machine and its libraries: `ram_limit_mib`, `numa_nodes`, "
              "`governor`, `load_before`, `load_after`, versions."),
)  # fmt: skip


def is_metric(name: str) -> bool:
    """Return whether a run may hold a metric of this name; a score must be a known quality metric."""
    scores = "|".join(map(re.escape, registry.names("metrics")))
    return any(_pattern(metric.name, scores).fullmatch(name) for metric in METRICS)


def is_tag(name: str) -> bool:
    """Return whether a run may hold a tag of this name, shown or hidden."""
    own = name.removeprefix("mlflow.") if name.startswith("mlflow.compress.") else name
    scores = "|".join(map(re.escape, registry.names("metrics")))
    return any(_pattern(tag.name, scores).fullmatch(own) for tag in TAGS)


def _pattern(name: str, scores: str) -> re.Pattern[str]:
    """Return what a name with braces matches."""
    alternatives = {key: "|".join(names) for key, names in _ALTERNATIVES.items()} | {"score": scores}
    parts = [
        re.escape(part) if index % 2 == 0 else f"(?:{alternatives.get(part, '.+')})"
        for index, part in enumerate(_BRACES.split(name))
    ]
    return re.compile("".join(parts))
