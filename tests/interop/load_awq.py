#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""load_awq.py - does gptqmodel (on transformers) load an AWQ folder of ours, and get the same answers?

Kernel: AwqTorchLinear (BACKEND.AWQ_TORCH), CPU; autoawq's own CPU inference needs an extension that is
no longer made. Prints the same JSON line as load_gptq.py.
"""

from peer_forward import main

if __name__ == "__main__":
    main(__doc__, "AWQ_TORCH", "AwqTorchLinear")
