#!/usr/bin/python3
"""Draws figures as SVG with gnuplot, from the results of a run.

    tests/support/plot.py RESULTS.json FIGURE.svg

RESULTS.json is what a run saved with save(); the functions can be called directly as well:

    timeline(path, title, panels, marks)   curves over the seconds of a run, its faults shaded
    bars(path, title, unit, rows)          one horizontal bar per row

A figure holds no date and no random identifier: the same results give the same bytes.
"""

import json
import pathlib
import subprocess
import sys

WIDTH = 900
PANEL_HEIGHT = 230
ROW_HEIGHT = 18
COLOURS = ("#1f5fa8", "#c4391d", "#2e8540", "#8a5cb3", "#b8860b", "#5b6770")
SHADE = "#f3d9a4"


def timeline(path, title, panels, marks=(), rows=False):
    """One panel above the other with the same axis of seconds.

    panels: {"label": axis label, "series": {name: [(second, value), ...]}, "log": bool (optional)}
    marks:  (from second, to second, name) of each fault, shaded, neighbours' names staggered; or, for a run of many
            faults (`rows`), in a row per name below the panels.
    """
    names = sorted({name for _, _, name in marks}) if rows else []
    xs = [x for panel in panels for points in panel["series"].values() for x, _ in points]
    end = max([*xs, *(to for _, to, _ in marks), 1])
    above = 3 if rows or not marks else 5
    rows_height = ROW_HEIGHT * len(names) + 50 if rows else 0
    height = 40 + PANEL_HEIGHT * len(panels) + rows_height + (30 if above == 5 else 0)
    script = [
        *_head(path, height),
        f"set multiplot title {_text(title)} font ',14' offset 0,-0.3",
        f"set xrange [0:{end:g}]",
        "set grid ytics lc rgb '#dddddd'",
        "set key outside right top samplen 1.5",
        f"set lmargin {28 if rows else 11}; set rmargin 18",
    ]
    top = 1 - 40 / height
    for number, panel in enumerate(panels):
        size = (PANEL_HEIGHT + (30 if above == 5 and number == 0 else 0)) / height
        top -= size
        script.append(f"set origin 0,{top:.4f}; set size 1,{size:.4f}")
        script.append(f"set tmargin {above - 2}" if number == 0 else "set tmargin 1; unset object; unset label")
        script += [] if rows else _marks(marks, named=number == 0)
        last = number == len(panels) - 1 and not rows
        script.append("set xlabel 'seconds'" if last else "unset xlabel")
        script += _panel(number, panel)
    if rows:
        script += _rows(marks, names, rows_height / height)
    _run([*script, "unset multiplot"])


def _panel(number, panel):
    yield f"set ylabel {_text(panel['label'])} offset 1,0"
    yield "set logscale y; set yrange [*:*]" if panel.get("log") else "unset logscale; set yrange [0:*]"
    curves = []
    for index, (name, points) in enumerate(panel["series"].items()):
        block = f"$p{number}_{index}"
        yield from (f"{block} << EOD", *(f"{x:.3f} {y:.6g}" for x, y in points), "EOD")
        colour = panel.get("colours", {}).get(name, COLOURS[index % len(COLOURS)])
        curves.append(f"{block} using 1:2 with lines lw 1.5 lc rgb '{colour}' title {_text(name)}")
    yield "plot " + ", ".join(curves)


def _rows(marks, names, size):
    """A row per name, with a bar for each of its faults; one that is over at once is seen, too."""
    yield f"set origin 0,0; set size 1,{size:.4f}; unset object; unset label; unset ylabel; unset logscale; unset key"
    yield f"set xlabel 'seconds'; set tmargin 0.5; set yrange [{len(names) - 0.4:g}:-0.6]"
    yield "set ytics (" + ", ".join(f"{_text(name)} {row}" for row, name in enumerate(names)) + ")"
    yield from ("$rows << EOD", *(f"{begin:.3f} {to:.3f} {names.index(name)}" for begin, to, name in marks), "EOD")
    bar = "using 1:3:1:2:($3-0.35):($3+0.35) with boxxyerror fs solid noborder"
    yield f"plot $rows {bar} lc rgb '{COLOURS[1]}', $rows using 1:3 with points pt 5 ps 0.3 lc rgb '{COLOURS[1]}'"


def bars(path, title, unit, rows):
    """rows: (name, value) from top to bottom."""
    rows = list(rows)
    script = [
        *_head(path, 90 + 34 * len(rows)),
        f"set title {_text(title)} font ',14'",
        f"set xlabel {_text(unit)}",
        f"set yrange [{-len(rows) + 0.4:g}:0.6]",
        f"set xrange [0:{1.15 * max(value for _, value in rows):g}]",
        "set ytics (" + ", ".join(f"{_text(name)} {-n}" for n, (name, _) in enumerate(rows)) + ")",
        "set grid xtics lc rgb '#dddddd'; unset key; set style fill solid",
        "$rows << EOD",
        *(f"{value:g} {-n}" for n, (_, value) in enumerate(rows)),
        "EOD",
        f"plot $rows using (0):2:(0):1:($2-0.35):($2+0.35) with boxxyerror lc rgb '{COLOURS[0]}', "
        "$rows using 1:2:(sprintf('  %s', gprintf('%.6g', $1))) with labels left",
    ]
    _run(script)


def save(path, figure, **arguments):
    """Saves a figure's data; `figure` is `timeline` or `bars`."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(json.dumps({"figure": figure} | arguments) + "\n", encoding="utf-8")


def draw(results, path):
    """Draws what save() saved."""
    arguments = json.loads(pathlib.Path(results).read_text(encoding="utf-8"))
    {"timeline": timeline, "bars": bars}[arguments.pop("figure")](path, **arguments)


def _head(path, height):
    return [
        f"set terminal svg noenhanced size {WIDTH},{height} dynamic font 'sans-serif,12' background '#ffffff'",
        f"set output {_text(str(path))}",
        "set border 3 lc rgb '#5b6770'; set tics nomirror textcolor rgb '#333333'",
    ]


def _marks(marks, named):
    for number, (begin, end, name) in enumerate(marks, 1):
        yield (
            f"set object {number} rectangle from first {begin:.3f}, graph 0 to first {end:.3f}, graph 1 "
            f"behind fillcolor rgb '{SHADE}' fillstyle solid noborder"
        )
        if named:
            row = (number - 1) % 3
            yield f"set label {number} {_text(name)} at first {begin:.3f}, graph {1.04 + 0.075 * row:g} font ',10'"


def _text(text):
    """A string of gnuplot's; the terminal is `noenhanced`, so that nothing in it is markup."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _run(script):
    text = "\n".join(script) + "\n"
    done = subprocess.run(["gnuplot", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0 or done.stderr:
        raise RuntimeError(f"gnuplot: {done.stderr}")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
        sys.exit(__doc__.strip())
    draw(*sys.argv[1:])
