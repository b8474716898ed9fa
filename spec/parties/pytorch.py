"""The layer of spec/recordings/record.py as a process that the oracle asks (spec/PROTOCOL.md):

    xmoe check --grad --arithmetic bf16 -- python3 spec/parties/pytorch.py bf16 [cuda]
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).parent.parent / "recordings"))
from record import layer, to_safetensors

DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "U8": "|u1"}


def read(file, device):
    """A layer case: its config, and its tensors in float32 where they are floats."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    config = json.loads(header.pop("__metadata__")["config"])
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = np.frombuffer(file[start + begin : start + end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        tensor = torch.from_numpy(array.copy()).to(device)
        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
    return config, tensors


def answer(file, form, device):
    config, inputs = read(file, device)
    if config["router"] == "base_train":
        return to_safetensors({}, {"refused": "router base_train"})
    outputs = layer(config, inputs, form)
    return to_safetensors({f"out.{name}": output for name, output in outputs.items()}, {})


form, device = (sys.argv[1:] + ["f32", "cpu"][len(sys.argv) - 1 :])[:2]
torch.set_num_threads(1)
while len(size := sys.stdin.buffer.read(8)) == 8:
    reply = answer(sys.stdin.buffer.read(int.from_bytes(size, "little")), form, device)
    sys.stdout.buffer.write(len(reply).to_bytes(8, "little") + reply)
    sys.stdout.buffer.flush()
