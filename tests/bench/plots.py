# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
"""Draws what tests/bench/report.py writes of: bench-*.svg beside it, of the cells that the targets are about, and
bench-full-*.svg of all others. Needs matplotlib; `tests/bench.py` runs it in an environment that has it. Argument: `quick` or
`full`."""

import json
import sys

import report

# What a bar is made of, from its foot: the key in a row, and its name in the legend.
RATE = [("iops", None)]
CROSSINGS = [("doorbells", "doorbells"), ("interrupts", "interrupts"), ("rest", "other exits")]
CPU = [("cpu_guest_us", "guest"), ("cpu_host_us", "host")]
COUNTED = [("instructions", None)]
CURVES = [("iops", "rate", "I/Os a second"), ("exits", "exits", "VM exits an I/O")]
CURVES += [("cpu_guest_us", "cpu-guest", "guest CPU an I/O, µs"), ("cpu_host_us", "cpu-host", "host CPU an I/O, µs")]
LICENCE = "SPDX-License-Identifier: GPL-2.0 OR Apache-2.0"
BARS = ["#2a6f97", "#e09f3e", "#8d99ae"]


def bars(axes, rows, parts, title):
    """One horizontal bar for each row, the first on top."""
    left = [0.0] * len(rows)
    for (key, name), colour in zip(parts, BARS):
        values = [row.get(key) or 0.0 for row in rows]
        axes.barh([row["way"] for row in rows], values, left=left, label=name, color=colour)
        left = [a + b for a, b in zip(left, values)]
    for row, total in zip(rows, left):
        text = f"{total:,.0f}" if total >= 100 else f"{total:.2g}"
        axes.annotate(text, (total, row["way"]), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.margins(x=0.15)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def picture(plot, folder, name, rows, parts, title):
    """A file with a panel for each depth."""
    depths = sorted({row["depth"] for row in rows})
    if not rows:
        return
    size = (5.2 * len(depths), 3.2)
    figure, panels = plot.subplots(1, len(depths), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, depth in zip(panels[0], depths):
        bars(axes, [row for row in rows if row["depth"] == depth], parts, f"{title}, depth {depth}")
    panels[0][0].invert_yaxis()  # which the others share
    if parts[0][1]:
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(parts), frameon=False)
    save(plot, figure, folder, name)


def save(plot, figure, folder, name):
    """Write a picture."""
    figure.savefig(folder / f"bench-{name}.svg", metadata={"Date": None, "Rights": LICENCE})
    plot.close(figure)


def curves(plot, folder, rows, queues, curve):
    """A panel for each load, a line for each way, over the depth; one LUN."""
    key, name, title = curve
    rows = [row for row in rows if (row["queues"], row["luns"]) == (queues, 1) and row.get(key)]
    if not rows:
        return
    loads = list(dict.fromkeys((row["load"], row["block"]) for row in rows))
    width = 4
    height = -(-len(loads) // width)
    figure, panels = plot.subplots(height, width, figsize=(4.2 * width, 3.2 * height), squeeze=False, layout="constrained")
    for axes in panels.flat:
        axes.set_visible(False)
    for axes, (load, block) in zip(panels.flat, loads):
        axes.set_visible(True)
        here = [row for row in rows if (row["load"], row["block"]) == (load, block)]
        for way in dict.fromkeys(row["way"] for row in here):
            line = sorted((row["depth"], row[key]) for row in here if row["way"] == way)
            axes.loglog(*zip(*line), marker="o", markersize=3, label=way)
        axes.set_xticks(depths := sorted({row["depth"] for row in here}), labels=[str(depth) for depth in depths])
        axes.minorticks_off()
        axes.set_title(f"{block // 1024} KiB, {report.LOADS[load]}", fontsize=10)
    figure.suptitle(f"{title} by depth, {('one queue', 'two queues')[queues - 1]}", fontsize=11)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    save(plot, figure, folder, f"full-{name}-{queues}")


def targets(plot, folder, results, merged):
    """4 KiB random reads on one queue and one LUN, depths 1 and 32."""
    wanted = {"load": "randread", "block": 4096, "queues": 1, "luns": 1}
    rows = [row for row in merged if row["depth"] in (1, 32) and all(row[k] == v for k, v in wanted.items())]
    guests = [row for row in rows if "exits" in row]
    for row in guests:
        # An interrupt is not always an exit, and an exit may be for several; what is left over cannot be less than none.
        row["rest"] = max(row["exits"] - row["doorbells"] - row["interrupts"], 0.0)
    picture(plot, folder, "rate", guests, RATE, "I/Os a second")
    picture(plot, folder, "exits", guests, CROSSINGS, "VM exits an I/O")
    picture(plot, folder, "cpu", guests, CPU, "CPU an I/O, µs")
    counted = [row for row in results["counted"] if row["depth"] in (1, 32)]
    picture(plot, folder, "instructions", counted, COUNTED, "instructions an I/O")


def draw(selection):
    """All pictures of a selection."""
    import matplotlib  # pylint: disable=import-outside-toplevel

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "avio", "svg.fonttype": "none"})
    from matplotlib import pyplot  # pylint: disable=import-outside-toplevel

    folder = report.FOLDERS[selection]
    for path in folder.glob("bench-*.svg"):
        path.unlink()
    results = json.loads((folder / report.DATA).read_text(encoding="utf-8"))
    merged = report.merged(results["rows"])
    targets(pyplot, folder, results, merged)
    if selection == "full":
        for curve in CURVES:
            for queues in (1, 2):
                curves(pyplot, folder, merged, queues, curve)


if __name__ == "__main__":
    draw(sys.argv[1])
