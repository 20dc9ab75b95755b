#!/usr/bin/env python3
"""Golden values of NF4 with double quantisation, computed by bitsandbytes: tests/golden/nf4/nf4.safetensors.

    python scripts/golden/nf4.py tests/golden/nf4/nf4.safetensors

Needs torch, bitsandbytes and safetensors. A matrix [96, 320] fp32 with blocks of zeros, of one size and of
outliers (two groups of 256 blocks, the second short): `values`, then what bitsandbytes makes of it: `codes`,
`scales`, `groups`, `offset`, and `dequantised`. `map` is its 8-bit dynamic map.
"""
import sys

import bitsandbytes.functional as F
import torch
from safetensors.torch import save_file

generator = torch.Generator().manual_seed(1)
values = 0.02 * torch.randn(96, 320, generator=generator)
values[0, :64] = 0
values[1, 64:128] = 0.5
values[2, 7] = 3.0
values[3] *= 1e-4
codes, state = F.quantize_4bit(values, blocksize=64, compress_statistics=True, quant_type="nf4")
save_file({"values": values, "codes": codes.flatten(), "scales": state.absmax, "groups": state.state2.absmax,
           "offset": state.offset.reshape(1), "map": state.state2.code, "dequantised": F.dequantize_4bit(codes, state)}, sys.argv[1])
