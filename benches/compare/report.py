"""From the figures of several rounds to medians, ratios, Markdown and JSON."""

import statistics
from dataclasses import dataclass

# Stands for the row of the same name up to its comma, in ratios of a cell whose rows are variants of one proxy.
ITSELF = "itself"


@dataclass(frozen=True)
class Column:
    """A figure of a cell, and to whose it is compared."""

    key: str
    title: str
    digits: int = 1
    # Names of rows, or ITSELF.
    over: tuple = ()
    # Whether lowest and highest are shown.
    spread: bool = False


TITLES = {
    "pgbouncer": "x PgBouncer", "pgbouncer-standbys": "x the same on the standbys", "direct": "x direct",
    "haproxy": "x HAProxy", "haproxy-standby": "x the same to a standby", ITSELF: "x its own",
}


def merge(runs):
    """Medians of the rounds that succeeded; of an error, what it was."""
    good = [run for run in runs if "error" not in run]
    if not good:
        return {"error": runs[0]["error"]}
    merged = {}
    for key in good[0]:
        values = [run[key] for run in good if run.get(key) is not None]
        if values:
            merged[key] = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    if len(good) < len(runs):
        failed = [run["error"] for run in runs if "error" in run]
        merged["failed"] = {"rounds": len(failed), "error": failed[0]}
    return merged


def ratios(columns, runs, results):
    """Adds to each result how it compares to others: the median of the ratios of all rounds. What else a machine does goes on
    for many rounds, or for a few, and is the same for all in one round, more or less; not so for the medians of each."""
    for name, result in results.items():
        result["ratios"] = {}
        for column in columns:
            for other in column.over:
                pairs = zip(runs[name], runs.get(name.split(",")[0] if other == ITSELF else other, []))
                both = [(mine.get(column.key), base.get(column.key)) for mine, base in pairs]
                found = [mine / base for mine, base in both if mine is not None and base]
                if found:
                    result["ratios"].setdefault(other, {})[column.key] = statistics.median(found)


def table(name, cell):
    """One cell in Markdown."""
    columns = cell["columns"]
    head, width = ["proxy"], 0
    for column in columns:
        head += [column.title, *(TITLES.get(other, other) for other in column.over)]
    width = len(head)
    lines = [f"### {name}", "", cell["about"], "", "| " + " | ".join(head) + " |", "|---|" + "---:|" * (width - 1)]
    notes = []
    for row, result in cell["results"].items():
        if "error" in result:
            lines.append(f"| {row} | {result['error'][:110]} |" + " |" * (width - 2))
            continue
        shown = [row]
        for column in columns:
            value = result.get(column.key)
            text = f"{value['median']:.{column.digits}f}" if value else ""
            if value and column.spread and value["low"] != value["high"]:
                text += f" ({value['low']:.{column.digits}f} to {value['high']:.{column.digits}f})"
            shown.append(text)
            for other in column.over:
                ratio = result["ratios"].get(other, {}).get(column.key)
                shown.append(f"{ratio:.2f}" if ratio is not None else "")
        lines.append("| " + " | ".join(shown) + " |")
        if "failed" in result:
            notes.append(f"{row}: failed in {result['failed']['rounds']} rounds: {result['failed']['error'][:200]}")
    return "\n".join(lines + [""] + [line + "\n" for line in notes])


def head(report):
    return (f"{report['date']}, {report['machine']}; {report['versions']}; {report['rounds']} rounds, interleaved; medians "
            "(lowest to highest); a ratio is the median of those of each round. CPU and memory are those of the proxy's own processes.\n")


def markdown(report):
    return "\n".join([head(report), *(table(name, cell) for name, cell in report["cells"].items())])


def plain(report):
    """As JSON can have it."""
    cells = {name: {"about": cell["about"], "results": cell["results"]} for name, cell in report["cells"].items()}
    return {**report, "cells": cells}
