"""XMoE in NumPy as a process that the oracle asks: xmoe check -- python3 numpy_client.py (see spec/PROTOCOL.md)."""
import json, math, sys, numpy as np
DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "U8": "|u1"}
silu = lambda h: h / (1 + np.exp(-h))
gelu = lambda h: 0.5 * h * (1 + np.vectorize(math.erf, otypes=[h.dtype])(h / math.sqrt(2)))
gelu_tanh = lambda h: 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
ACTS = dict(relu=lambda h: np.maximum(h, 0), gelu=gelu, gelu_tanh=gelu_tanh, silu=silu, swiglu=silu, geglu=gelu)
def layer(c, t):
    x, T, E, router = t["x"], len(t["x"]), c["num_experts"], c["router"]
    real = t.get("token_mask", np.ones(T)) == 1  # padded tokens select nothing and do not count for the capacity
    logits = x @ t["router.weight"].T
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    order = np.argsort(-(logits if router == "topk" else probs), 1, kind="stable")  # ties: the lower index first
    rank, mass = order.argsort(1), np.take_along_axis(probs, order, 1).cumsum(1)
    if router == "threshold": many = 1 + (mass[:, :-1] < c["threshold"]).sum(1)  # rank r: the mass before it is < tau
    else: many = np.full(T, {"dense": E, "switch": 1, "topk": c.get("top_k")}[router])
    selected = (rank < many[:, None]) & real[:, None]
    kept, y, drops = np.zeros_like(selected), np.zeros_like(x), c["drop_tokens"] and router != "dense"
    C = max(math.ceil(c["capacity_factor"] * real.sum() / E), c["min_capacity"]) if drops else T
    for e in range(E):
        by_priority = np.lexsort((-probs[:, e], np.where(selected[:, e], rank[:, e], E)))  # rank, then p, then token
        rows = by_priority[: min(C, selected[:, e].sum())]
        linear = lambda v, name: v @ t[f"experts.{name}"][e].T + t.get(f"experts.{name}_bias", np.zeros((E, 1), "f4"))[e]
        h = ACTS[c["activation"]](linear(x[rows], "gate_proj" if "experts.gate_proj" in t else "up_proj"))
        if "experts.gate_proj" in t: h = h * linear(x[rows], "up_proj")
        kept[rows, e], y[rows] = True, y[rows] + probs[rows, e, None] * linear(h, "down_proj")
    return dict(logits=logits, probs=probs, selected=selected.astype("u1"), kept=kept.astype("u1"), y=y)
while len(size := sys.stdin.buffer.read(8)) == 8:
    file = sys.stdin.buffer.read(int.from_bytes(size, "little")); start = 8 + int.from_bytes(file[:8], "little")
    head, t, data, out = json.loads(file[8:start]), {}, b"", {}; config = json.loads(head.pop("__metadata__")["config"])
    for n, h in head.items():
        t[n] = np.frombuffer(file[start:][slice(*h["data_offsets"])], DTYPES[h["dtype"]]).reshape(h["shape"])
    lacks = config["router"] in ("hash", "base_eval", "base_train") or config["skip_expert"] or t.keys() & {"noise", "grad.y"}
    if lacks: out["__metadata__"] = dict(refused="no such router, noise, skip expert or gradients")
    for n, a in () if lacks else layer(config, t).items():
        at, data = len(data), data + a.tobytes()
        out["out." + n] = dict(dtype={1: "U8", 4: "F32", 8: "F64"}[a.itemsize], shape=a.shape, data_offsets=[at, len(data)])
    head = json.dumps(out).encode(); file = len(head).to_bytes(8, "little") + head + data
    sys.stdout.buffer.write(len(file).to_bytes(8, "little") + file); sys.stdout.buffer.flush()
