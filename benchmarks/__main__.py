"""Measures mognet on each engine, side by side with others, and prints rates, ratios and whether the targets are reached."""

import argparse
import json
from pathlib import Path

from benchmarks import contest, servers, sqlite
from benchmarks.table import PARTS, show


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    engines = ("sqlite", *servers.ENGINES)
    parser.add_argument("--engine", action="append", choices=engines, metavar="NAME", help=f"only this one, of {', '.join(engines)}")
    parser.add_argument("--quick", action="store_true", help="fewer tasks and runs: about a minute for each engine")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"only this part, of {', '.join(PARTS)}")
    parser.add_argument("--jobs", type=int, help="finished jobs in the store that is searched (default 1000000; 50000 with --quick)")
    parser.add_argument("--runs", type=int, help="runs of each subject, of which the medians are shown (default 5; 3 with --quick)")
    parser.add_argument("--no-peers", action="store_true", help="mognet alone, without other task queues")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, of each run too")
    options = parser.parse_args()
    options.runs = options.runs or (3 if options.quick else 5)
    options.jobs = options.jobs or (50_000 if options.quick else 1_000_000)
    options.only = options.only or list(PARTS)
    found = {}
    for engine in options.engine or engines:
        figures = sqlite.measure(options) if engine == "sqlite" else servers.measure(engine, options)
        if figures is None:
            continue
        found[engine] = figures
        print(f"\n{engine}: {json.dumps(figures['settings'])}\n")
        table = sqlite.rows(figures) if engine == "sqlite" else servers.rows(engine, figures)
        if table:
            show(table)
        if "peers" in figures:
            contest.show(figures["peers"])
        if "subjects" in figures and engine == "sqlite":
            sqlite.show_costs(figures)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
