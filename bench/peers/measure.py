#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""measure.py RESULTS LABEL KEY=VALUE... -- COMMAND... - run a command, append one JSON line about it.

Records wall and CPU seconds and peak RSS of the child and its children, the load average at start and end
(the machine may be shared), the exit status, and the child's last stdout line when that is JSON. When
the child prints JSON lines with a "model" key, there is a row for each, labelled with that model.
The child's output goes to RESULTS' folder as log-LABEL.txt.
"""

import json
import os
import re
import resource
import subprocess
import sys
import time


def main():
    results, label = sys.argv[1:3]
    cut = sys.argv.index("--")
    row = {"label": label, **dict(a.split("=", 1) for a in sys.argv[3:cut]), "load": round(os.getloadavg()[0], 2)}
    log_path = os.path.join(os.path.dirname(results) or ".", "log-" + re.sub(r"[^A-Za-z0-9._-]+", "_", label) + ".txt")
    begin = time.time()
    with open(log_path, "wb") as log:
        done = subprocess.run(sys.argv[cut + 1:], stdout=subprocess.PIPE, stderr=log, check=False)
        log.write(done.stdout)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    row.update(rc=done.returncode, wall_s=round(time.time() - begin, 1), cpu_s=round(used.ru_utime + used.ru_stime, 1),
               rss_mib=round(used.ru_maxrss / 1024), load_end=round(os.getloadavg()[0], 2))
    found = [json.loads(line) for line in done.stdout.decode(errors="replace").splitlines() if line.startswith('{"')]
    rows = found if found and "model" in found[0] else found[-1:] or [{}]
    with open(results, "a") as f:
        for more in rows:
            line = json.dumps({**row, **more, "label": more.get("model", label)})
            f.write(line + "\n")
            print(line)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
