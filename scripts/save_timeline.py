#!/usr/bin/env python3
"""Draws saves beside the steps of a run, from its metrics.jsonl, as SVG.

    scripts/save_timeline.py runs/a/metrics.jsonl --saves 2 --out docs/images/save_timeline.svg

Each step is a block as long as it took, on one line; under it each save from its begin to its commit, and on it, in red, how long the training
waited for it. Of the run the part around the first --saves saves is shown.
"""
import argparse
import json
import pathlib
import sys

WIDTH, LEFT, TOP, ROW, GAP = 900, 110, 42, 26, 16
STYLE = """
  text { font: 12px sans-serif; fill: #333; } .small { font-size: 11px; fill: #666; }
  .step { fill: #9db8d9; stroke: #fff; } .save { fill: #8fbf8f; } .stall { fill: #d04a4a; } .axis { stroke: #999; }
"""


def read(path):
    steps, saves = [], []
    for line in pathlib.Path(path).read_text().splitlines():
        row = json.loads(line)
        if "save_s" in row:
            saves.append(row)
        elif "step_time_s" in row:
            steps.append(row)
    return steps, saves


def picture(steps, saves):
    begin = min(row["time"] - row["save_s"] for row in saves) - 3 * steps[0]["step_time_s"]
    end = max(row["time"] for row in saves)
    margin = 0.15 * (end - begin)
    begin, end = begin - margin, end + margin
    scale = (WIDTH - LEFT - 20) / (end - begin)

    def place(time):
        return LEFT + (min(max(time, begin), end) - begin) * scale

    def bar(kind, start, stop, y, height, title):
        return f'<rect class="{kind}" x="{place(start):.1f}" y="{y}" width="{max(0.5, place(stop) - place(start)):.1f}" height="{height}"><title>{title}</title></rect>'

    shown = [row for row in steps if row["time"] > begin and row["time"] - row["step_time_s"] < end]
    lines = []
    for row in shown:
        # A row is written when the step after it is under way: what is drawn is how long steps took, one behind the other.
        lines.append(bar("step", row["time"] - row["step_time_s"], row["time"], TOP, ROW, f'step {row["step"]}: {1000 * row["step_time_s"]:.1f} ms'))
    y = TOP + ROW + GAP
    for row in saves:
        start = row["time"] - row["save_s"]
        lines.append(bar("save", start, row["time"], y, ROW, f'step {row["step"]}: {row["save_s"]:.2f} s, {row["save_bytes"] / 1e6:.0f} MB'))
        lines.append(bar("stall", start, start + row["save_stall_s"], y, ROW, f'training waited {1000 * row["save_stall_s"]:.1f} ms'))
        lines.append(f'<text class="small" x="{place(start):.1f}" y="{y + ROW + 14}">step {row["step"]}: {row["save_s"]:.2f} s, of which the training '
                     f'waited {1000 * row["save_stall_s"]:.0f} ms</text>')
        y += ROW + GAP + 6
    height = y + 30
    lines.append(f'<line class="axis" x1="{LEFT}" y1="{y + 6}" x2="{WIDTH - 20}" y2="{y + 6}"/>')
    unit = next(u for u in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 600) if (end - begin) / u < 12)
    tick = 0.0
    while begin + tick <= end:
        lines.append(f'<line class="axis" x1="{place(begin + tick):.1f}" y1="{y + 3}" x2="{place(begin + tick):.1f}" y2="{y + 9}"/>'
                     f'<text class="small" x="{place(begin + tick):.1f}" y="{y + 22}" text-anchor="middle">{tick:g} s</text>')
        tick += unit
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">
<style>{STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>
<text x="12" y="22">Steps, and the saves that are written beside them (red: the training waits)</text>
<text x="12" y="{TOP + 17}">steps</text><text x="12" y="{TOP + ROW + GAP + 17}">saves</text>
{chr(10).join(lines)}
</svg>
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics")
    parser.add_argument("--saves", type=int, default=2)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    steps, saves = read(options.metrics)
    if not steps or not saves:
        print(f"{options.metrics}: no save of a run, or no step", file=sys.stderr)
        return 2
    pathlib.Path(options.out).write_text(picture(steps, saves[:options.saves]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
