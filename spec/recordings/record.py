"""Record what PyTorch computes for a fixed set of layer calls, forward and backward, in several formats of the experts.

    python3 spec/recordings/record.py --device cuda spec/recordings/pytorch-cuda

One file for each case, a layer case of spec/SEMANTICS.md: config, inputs and weights in float32, then what the layer
gave, under `out32.` for float32 experts and `out_tf32.`, `out_f16.` and `out_bf16.` for the others; `expert_out` holds
the experts' rows before they are weighted, by expert and by token within one. Device, driver, versions and seed are in
the metadata. TF32 is the GPU's: `--device cpu` leaves it out. Needs PyTorch and NumPy.

The layer is written from spec/SEMANTICS.md. The router (logits, softmax, selection) and the loss are float32 in every
format; x, the experts' weights, what they hand on and y are rounded to it. Products accumulate in float32.
"""

import argparse
import json
import math
import platform
import struct
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

FORMATS = {"f32": torch.float32, "tf32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
PREFIX = {"f32": "out32.", "tf32": "out_tf32.", "f16": "out_f16.", "bf16": "out_bf16."}
ACTIVATIONS = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda h: F.gelu(h, approximate="tanh"),
    "silu": F.silu,
    "swiglu": F.silu,
    "geglu": F.gelu,
}
GATED = ("swiglu", "geglu")

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
with suppress(AssertionError, AttributeError):  # PyTorch 1 has no such setting
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


# The layer


def layer(config, inputs, form):
    """Every output of one call by its name, and the gradients where `inputs` has the cotangent `grad.y`."""
    leaves = {name: value.clone() for name, value in inputs.items() if name == "x" or is_weight(name)}
    if "grad.y" in inputs:
        leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    outputs = forward(config, inputs | leaves, form)
    if "grad.y" in inputs:
        loss = (outputs["y"].float() * inputs["grad.y"]).sum()
        loss = loss + config["aux_loss_coef"] * outputs["load_balancing_loss"].sum()
        loss.backward()
        outputs["loss"] = loss.reshape(1)
        for name, leaf in leaves.items():
            outputs[f"grad.{name}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return {name: output.detach() for name, output in outputs.items()}


def is_weight(name):
    return name == "router.weight" or name.startswith("experts.")


def forward(config, inputs, form):
    x = inputs["x"]
    z, p = route(x, inputs.get("router.weight"))
    ranks = select(config, z, p, inputs)  # [T, columns]: the rank at which a token chose an expert, or −1
    kept = dispatch(config, ranks, p)
    w = combine_weights(config, z, p, ranks) * kept
    y, rows = run_experts(config, x, inputs, kept, w, form)
    balance = load_balancing_loss(config, p, ranks, x)
    outputs = {} if z is None else {"logits": z, "probs": p}
    outputs |= {"selected": ranks >= 0, "kept": kept, "combine": w, "expert_out": rows, "y": y}
    return outputs | {"load_balancing_loss": balance.reshape(1)}


def route(x, router):
    if router is None:
        return None, None
    z = x @ router.T
    return z, torch.softmax(z, dim=-1)


def select(config, z, p, inputs):
    """Equal values: the lower expert first, by a stable sort. Padding chooses nobody."""
    name = config["router"]
    num_tokens, columns = config["num_tokens"], config["num_experts"] + config["skip_expert"]
    if name == "hash":
        chosen = inputs["hash_table"][inputs["token_ids"]][:, None]
        ranks = torch.full((num_tokens, columns), -1, device=chosen.device).scatter(1, chosen, 0)
    else:
        order = descending(z if name == "base_eval" else p)
        if name == "topk":
            noisy = z + inputs["noise"] if "noise" in inputs else z
            order = descending(noisy.scatter(1, order[:, :1], math.inf))
        place = torch.arange(columns, device=p.device).expand(num_tokens, columns)
        if name == "threshold":
            before = F.pad(torch.gather(p, 1, order).cumsum(1), (1, 0))[:, :-1]
            chosen = (place == 0) | (before < config["threshold"]) | (config["threshold"] > 1)
        else:
            chosen = place < {"dense": columns, "topk": config.get("top_k")}.get(name, 1)
        ranks = torch.full_like(order, -1).scatter(1, order, torch.where(chosen, place, -1))
    if "token_mask" in inputs:
        ranks[inputs["token_mask"] == 0] = -1
    return ranks


def descending(values):
    return torch.sort(values.detach(), dim=1, descending=True, stable=True).indices


def dispatch(config, ranks, p):
    """An expert keeps its first C tokens: better rank, then higher p, then lower index."""
    selected = ranks >= 0
    if not config["drop_tokens"] or config["router"] == "dense":
        return selected
    num_real = int(selected.any(1).sum())  # every real token chooses somebody
    share = config["capacity_factor"] * num_real / config["num_experts"]
    capacity = min(num_real, max(math.ceil(share), config["min_capacity"]))
    kept = torch.zeros_like(selected)
    for e in range(ranks.shape[1]):
        tokens = selected[:, e].nonzero()[:, 0]
        if p is not None:
            tokens = tokens[torch.sort(p[tokens, e].detach(), descending=True, stable=True).indices]
        tokens = tokens[torch.sort(ranks[tokens, e], stable=True).indices]
        is_skip = config["skip_expert"] and e == 0
        kept[tokens if is_skip else tokens[:capacity], e] = True
    return kept


def combine_weights(config, z, p, ranks):
    if config["router"] == "hash":
        return torch.ones_like(ranks, dtype=torch.float32)
    return torch.sigmoid(z) if config["router"] == "base_eval" else p


def run_experts(config, x, inputs, kept, w, form):
    """y [T, d] and the experts' rows [A, d]. A token comes once to an expert, so that sums have one order."""
    dtype = FORMATS[form]
    given = x.to(dtype)
    parts = {name: value.to(dtype) for name, value in inputs.items() if name.startswith("experts.")}
    activation = ACTIVATIONS[config["activation"]]
    y = torch.zeros_like(x)
    rows = []
    for column in range(kept.shape[1]):
        tokens = kept[:, column].nonzero()[:, 0]
        e = column - config["skip_expert"]
        if e < 0:
            rows.append(torch.zeros(len(tokens), x.shape[1], dtype=dtype, device=x.device))
            continue

        def linear(name, a):
            out = Product.apply(a, parts[f"experts.{name}"][e], form)
            bias = parts.get(f"experts.{name}_bias")
            return out if bias is None else out + bias[e]

        up = linear("up_proj", given[tokens])
        gate = linear("gate_proj", given[tokens]).float() if config["activation"] in GATED else None
        hidden = activation(up.float()) if gate is None else activation(gate) * up.float()
        rows.append(linear("down_proj", hidden.to(dtype)))
        y = y.index_add(0, tokens, w[tokens, column, None] * rows[-1].float())
    return y.to(dtype), torch.cat(rows)


def load_balancing_loss(config, p, ranks, x):
    real = ranks.max(1).values >= 0
    if config["router"] in ("hash", "base_eval") or not real.any():
        return torch.zeros((), device=x.device)
    top1 = (ranks == 0)[real].float().mean(0)
    return p.shape[1] * (p[real].mean(0) * top1).sum()


class Product(torch.autograd.Function):
    """a bᵀ in the experts' format, and so its backward."""

    @staticmethod
    def forward(ctx, a, b, form):
        ctx.save_for_backward(a, b)
        ctx.form = form
        return multiply(a, b.T, form)

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        return multiply(grad, b, ctx.form), multiply(grad.T, a, ctx.form), None


def multiply(a, b, form):
    if form == "f16" and a.device.type == "cpu":  # older versions have no such product there
        return (a.float() @ b.float()).half()
    with tf32(form == "tf32"):
        return a @ b


@contextmanager
def tf32(allowed):
    torch.backends.cuda.matmul.allow_tf32 = allowed
    yield
    torch.backends.cuda.matmul.allow_tf32 = False


# The cases


DEFAULTS = {
    "threshold": 0.75,
    "top_k": 2,
    "capacity_factor": 1.0,
    "min_capacity": 1,
    "drop_tokens": False,
    "skip_expert": False,
    "aux_loss_coef": 0.01,
}


def case(seed, router, activation, sizes, logits="generic", mask=None, biases=True, noise=False, **settings):
    """A call of sizes (T, E, d, m).

    logits  generic; peaked; level: all equal; tied: integers, tokens and experts repeated; saturated: multiples of 1000
    mask    the share of real tokens
    """
    random = np.random.default_rng(seed)
    num_tokens, num_experts, d, m = sizes
    config = DEFAULTS | {"router": router, "activation": activation} | settings
    config |= {"num_tokens": num_tokens, "num_experts": num_experts, "d_model": d, "d_ff": m}
    columns = num_experts + config["skip_expert"]

    def normal(*shape, scale=1.0):
        return scale * random.standard_normal(shape)

    def integers(low, high, *shape):
        return random.integers(low, high + 1, shape)

    exact = logits in ("tied", "saturated")
    x = integers(-1, 1, num_tokens, d) if exact else normal(num_tokens, d)
    tensors = {"x": x[integers(0, 2, num_tokens)] if logits == "tied" else x}
    if router != "hash":
        scale = {"peaked": 20, "saturated": 1000, "tied": 1}.get(logits, 2)
        wr = scale * integers(-1, 1, columns, d) if exact else normal(columns, d, scale=scale / math.sqrt(d))
        repeated = {"tied": integers(0, 2, columns), "level": integers(0, 0, columns)}
        tensors["router.weight"] = wr[repeated.get(logits, np.arange(columns))]
    for name in ["up_proj"] + ["gate_proj"] * (activation in GATED) + ["down_proj"]:
        shape = (num_experts, d, m) if name == "down_proj" else (num_experts, m, d)
        tensors[f"experts.{name}"] = normal(*shape, scale=1 / math.sqrt(shape[2]))
        if biases:
            tensors[f"experts.{name}_bias"] = normal(*shape[:2])
    if noise:
        tensors["noise"] = integers(-2, 2, num_tokens, columns) if exact else normal(num_tokens, columns)
    tensors["grad.y"] = normal(num_tokens, d)
    arrays = {name: value.astype(np.float32) for name, value in tensors.items()}
    if router == "hash":
        arrays["hash_table"] = random.integers(0, columns, 7)
        arrays["token_ids"] = random.integers(0, 7, num_tokens)
    if mask is not None:
        arrays["token_mask"] = (random.random(num_tokens) < mask).astype(np.uint8)
    return {"config": config, "seed": seed, "arrays": arrays}


TIGHT = {"drop_tokens": True, "capacity_factor": 0.5}
CASES = {
    "threshold-swiglu": case(1, "threshold", "swiglu", (13, 6, 12, 5)),
    "threshold-tight-silu": case(2, "threshold", "silu", (18, 4, 9, 6), **TIGHT),
    "threshold-on-a-mass": case(3, "threshold", "relu", (7, 8, 5, 6), logits="level", threshold=0.5),
    "threshold-tied-tight": case(4, "threshold", "gelu_tanh", (19, 8, 6, 3), logits="tied", threshold=0.5, **TIGHT),
    "threshold-0": case(5, "threshold", "relu", (6, 5, 4, 7), threshold=0.0, biases=False),
    "threshold-above-1-saturated": case(6, "threshold", "geglu", (9, 6, 7, 4), logits="saturated", threshold=1.5),
    "threshold-idle-experts": case(7, "threshold", "gelu", (5, 24, 8, 3), logits="peaked", threshold=0.9),
    "threshold-masked-tight": case(8, "threshold", "geglu", (17, 4, 8, 5), mask=0.6, **TIGHT),
    "threshold-skip-expert": case(9, "threshold", "silu", (15, 3, 6, 5), skip_expert=True, drop_tokens=True),
    "threshold-wide": case(10, "threshold", "relu", (16, 2, 64, 32)),
    "odd-sizes": case(11, "threshold", "swiglu", (5, 3, 7, 1), threshold=0.6),
    "one-of-everything": case(12, "threshold", "gelu", (1, 1, 1, 1)),
    "no-tokens": case(13, "threshold", "relu", (0, 3, 4, 2)),
    "all-padded": case(14, "topk", "silu", (4, 3, 4, 2), mask=0.0, **TIGHT),
    "dense-gelu": case(15, "dense", "gelu", (7, 5, 9, 4), aux_loss_coef=0.1),
    "topk-noise-tight": case(16, "topk", "gelu_tanh", (15, 6, 10, 4), noise=True, **TIGHT),
    "topk-tied-noise": case(17, "topk", "relu", (11, 8, 6, 5), logits="tied", top_k=3, noise=True),
    "topk-all": case(18, "topk", "geglu", (6, 4, 5, 3), top_k=4),
    "switch-tight": case(19, "switch", "swiglu", (21, 5, 8, 4), **TIGHT),
    "hash": case(20, "hash", "relu", (12, 5, 6, 4), **TIGHT),
    "base-eval": case(21, "base_eval", "gelu", (12, 5, 6, 4), **TIGHT),
}


# The recording


def record(case, forms, device):
    """The tensors of one file: the inputs, then what the layer gave in each format."""
    inputs = {name: torch.from_numpy(array).to(device) for name, array in case["arrays"].items()}
    tensors = dict(inputs)
    for form in forms:
        outputs = layer(case["config"], inputs, form)
        tensors |= {PREFIX[form] + name: tensor for name, tensor in outputs.items()}
    return tensors


def describe(device):
    about = {"torch": torch.__version__, "cuda": torch.version.cuda or "none", "python": platform.python_version()}
    if device == "cpu":
        kernel = "the library's; of f16, those of float32 on rounded factors, rounded once"
        return about | {"device": f"CPU, {platform.machine()}", "driver": "none", "products": kernel}
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    return about | {"device": torch.cuda.get_device_name(), "driver": driver, "products": "the library's"}


DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "U8",
}


def to_safetensors(tensors, metadata):
    """The length of the header, the header, the data; wide elements first, so that all are aligned."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, data = {"__metadata__": metadata}, b""
    for name, tensor in ordered:
        bits = {2: torch.int16, 1: torch.uint8}.get(tensor.element_size())
        flat = tensor.cpu().contiguous()
        raw = (flat.view(bits) if bits else flat).numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    forms = [form for form in FORMATS if form != "tf32" or arguments.device == "cuda"]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, described in CASES.items():
        metadata = describe(arguments.device) | {
            "format": "xmoe-layer-case/1",
            "name": name,
            "config": json.dumps(described["config"]),
            "seed": str(described["seed"]),
            "formats": ",".join(forms),
            "source": "spec/recordings/record.py",
        }
        tensors = record(described, forms, arguments.device)
        (arguments.folder / f"{name}.safetensors").write_bytes(to_safetensors(tensors, metadata))


if __name__ == "__main__":
    main()
