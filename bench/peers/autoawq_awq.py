#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""autoawq_awq.py - AWQ with autoawq 0.2.9 on the CPU, in float32.

autoawq keeps `v.cpu()` as the backup of the weights it scales while searching; on a CPU that is the
same memory, so each of the 20 trials starts from the last one's result. This script refuses to run
unless the installed package is mended (`.clone()` added in _compute_best_scale).
"""

import inspect
import time

import calibration

args = calibration.options(__doc__)

import torch  # noqa: E402
from awq import AutoAWQForCausalLM  # noqa: E402
from awq.quantize.quantizer import AwqQuantizer  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

if ".clone() for" not in inspect.getsource(AwqQuantizer._compute_best_scale):
    raise SystemExit("autoawq is not mended: _compute_best_scale must clone the state it restores")

model = AutoAWQForCausalLM.from_pretrained(args.model, torch_dtype=torch.float32, device_map="cpu",
                                           use_cache=False, low_cpu_mem_usage=True)
tokenizer = PreTrainedTokenizerFast(tokenizer_file=args.model + "/tokenizer.json")
begin = time.time()
model.quantize(tokenizer, quant_config={"zero_point": True, "q_group_size": args.group, "w_bit": args.bits,
                                        "version": "GEMM"},
               calib_data=calibration.windows(args), max_calib_samples=args.windows, max_calib_seq_len=args.window)
seconds = time.time() - begin
model.save_quantized(args.out)
calibration.report(seconds, tool="autoawq", dtype="torch.float32")
