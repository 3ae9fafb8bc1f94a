"""Measures mognet on each engine, side by side with others, and prints rates, ratios and whether the targets are reached."""

import argparse
import json
from pathlib import Path

from benchmarks import servers, sqlite
from benchmarks.table import show


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    engines = ("sqlite", *servers.ENGINES)
    parser.add_argument("--engine", action="append", choices=engines, metavar="NAME", help=f"only this one, of {', '.join(engines)}")
    parser.add_argument("--quick", action="store_true", help="fewer tasks and runs: about a minute for each engine")
    parser.add_argument("--runs", type=int, help="runs of each subject, of which the medians are shown (default 5; 3 with --quick)")
    parser.add_argument("--no-peers", action="store_true", help="SQLite without huey and DBOS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, of each run too")
    options = parser.parse_args()
    options.runs = options.runs or (3 if options.quick else 5)
    found = {}
    for engine in options.engine or engines:
        figures = sqlite.measure(options) if engine == "sqlite" else servers.measure(engine, options)
        if figures is None:
            continue
        found[engine] = figures
        print(f"\n{engine}: {json.dumps(figures['settings'])}\n")
        show(sqlite.rows(figures) if engine == "sqlite" else servers.rows(engine, figures))
        if engine == "sqlite":
            sqlite.show_costs(figures)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
