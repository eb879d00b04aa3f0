#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""load_gptq.py - does gptqmodel (on transformers) load a GPTQ folder of ours, and get the same answers?

Kernel: TorchLinear (BACKEND.TORCH), CPU. Prints one JSON line: ppl over the windows; for the first
window top1_float (top-1 agreement with the float original) and, with --nibble-logits, top1 and cosine
against nibble's logits.
"""

from peer_forward import main

if __name__ == "__main__":
    main(__doc__, "TORCH", "TorchLinear")
