"""What the models cost: time, memory, size."""

from __future__ import annotations

from aiene.benchmark.report.cells import TableBuilder, dig, number, words
from aiene.benchmark.report.charts.cost import cost
from aiene.benchmark.report.record import Item, Section, Table, Text
from aiene.benchmark.report.source import Source

_STEPS = ("load", "preprocess", "inference", "postprocess", "total")


def resources(source: Source) -> Section:
    """The chapter."""
    if not source.run:
        return Section("resources", "Time and memory", (Text("No model was run."),))
    repeats = max((dig(m, "resources", "inference_repeats") or 1 for m in source.run), default=1)
    machine = source.summary["machine"]
    often = "once" if repeats == 1 else f"{repeats} times"
    said = (
        f"Measured on {machine.get('cpu') or 'a processor of unknown name'}, "
        f"{machine.get('cores')} cores, {machine.get('memory_gib')} GiB, "
        f"device {machine.get('device') or 'cpu'}{_gpu(machine.get('gpu'))}. The first inference of a "
        f"process is a warm-up and not timed; inference was timed {often} a case."
    )
    items: list[Item] = [Text(said), _times(source), _sizes(source)]
    chart = cost(source, source.main_label) if source.main_label else None
    items += [chart] if chart is not None else []
    return Section("resources", "Time and memory", tuple(items))


def _gpu(gpu: object) -> str:
    return f" ({gpu})" if isinstance(gpu, str) and gpu else ""


def _times(source: Source) -> Table:
    head = ("Model", *(step.capitalize() for step in _STEPS), "CPU time")
    builder = TableBuilder("Seconds of a case: median, 95 % interval under it", head)
    for model in source.run:
        spent = dig(model, "resources", "seconds")
        cells = [
            builder.estimate(model["name"], f"seconds of {step}", dig(spent, step, "median"), "seconds")
            for step in _STEPS
        ]
        cpu = dig(model, "resources", "cpu_seconds", "total", "median")
        builder.row(words(model["name"]), *cells, builder.estimate(model["name"], "CPU time", cpu, "seconds"))
    return builder.table()


def _sizes(source: Source) -> Table:
    head = (
        *("Model", "Peak memory (MiB)", "Mean of cases (MiB)", "Peak GPU memory (MiB)", "Parameters"),
        *("Size (bytes)", "Operations of an inference (FLOPs)"),
    )
    builder = TableBuilder("Memory and size", head)
    for model in source.run:
        used = model.get("resources")
        builder.row(
            words(model["name"]),
            number(dig(used, "peak_rss_mib", "max"), "mib"),
            number(dig(used, "peak_rss_mib", "mean"), "mib"),
            number(dig(used, "peak_gpu_mib", "max"), "mib"),
            number(model.get("parameters"), "large"),
            number(model.get("size_bytes"), "large"),
            number(model.get("flops"), "large"),
        )
    return builder.table()
