#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""table.py RESULTS.jsonl - the newest row of each run as markdown tables on stdout."""

import json
import sys

COLUMNS = {
    "quantize": ("threads", "wall_s", "cpu_s", "rss_mib", "quantize_s", "dtype", "load", "rc"),
    "shapes": ("threads", "wall_s", "cpu_s", "rss_mib", "quantize_s", "dtype", "load", "rc"),
    "evaluate": ("text", "ppl", "kld", "kld_se", "same_top", "windows", "rc"),
    "perplexity": ("text", "threads", "ppl", "tokens", "forward_s", "tokens_per_s", "wall_s", "cpu_s", "rss_mib", "load", "rc"),
}


def main():
    newest = {}
    with open(sys.argv[1]) as f:
        for line in f:
            row = json.loads(line)
            key = (row.get("kind"), row["label"], row.get("text") if row.get("kind") == "evaluate" else row["threads"])
            newest[key] = row
    for kind, columns in COLUMNS.items():
        rows = [r for k, r in sorted(newest.items(), key=str) if k[0] == kind]
        if not rows:
            continue
        if kind == "evaluate":
            rows.sort(key=lambda r: (r["text"], r.get("kld") or 0))
        print(f"## {kind}\n\n| run | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
        for r in rows:
            print("| " + r["label"] + " | " + " | ".join(str(r.get(c, "")) for c in columns) + " |")
        print()


if __name__ == "__main__":
    main()
