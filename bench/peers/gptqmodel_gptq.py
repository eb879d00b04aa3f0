#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gptqmodel_gptq.py - GPTQ with gptqmodel 7.7.0 on the CPU.

--order gar is the tool's default (group-aware order, sequential g_idx), act is desc_act, none is plain.
Set GPTQMODEL_CPU_WORKERS and OMP_NUM_THREADS to the thread count outside.
"""

import time

import calibration

args = calibration.options(__doc__, order=dict(choices=["gar", "act", "none"], default="gar"),
                           asym=dict(action="store_true"))

import torch  # noqa: E402  (after the thread count is set)
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig  # noqa: E402

config = QuantizeConfig(bits=args.bits, group_size=args.group, sym=not args.asym, desc_act=args.order == "act",
                        act_group_aware=args.order == "gar", offload_to_disk=False)
model = GPTQModel.load(args.model, config, device="cpu", backend=BACKEND.TORCH)
rows = [{"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        for ids in calibration.windows(args)]
begin = time.time()
model.quantize(rows, batch_size=1, backend=BACKEND.TORCH)
seconds = time.time() - begin
model.save(args.out)
calibration.report(seconds, tool="gptqmodel", dtype=str(model.model.dtype))
