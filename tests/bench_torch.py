#!/usr/bin/python3
"""bench_torch.py - the training step of `lab bench` in PyTorch, with the same shapes, tokens and rows.

   bench_torch.py [tiny small medium]      prints lines like `lab bench`: part, shape, key value ...

Llama's model (RMSNorm, rotary embeddings, SwiGLU, untied head), causal attention, cross-entropy,
AdamW with clipping, f32. "train" has B rows of T tokens, all of them targets. "rows" has an Aligner's
32 rows with masked conditions, padded to the longest of the batch as PyTorch users do (ignore_index);
only target tokens count. Exits with 3 if torch is not installed."""
import math, os, statistics, sys, time
try:
    import torch, torch.nn as nn, torch.nn.functional as F
except ImportError:
    print("python3-torch is not installed", file=sys.stderr)
    sys.exit(3)
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
torch.manual_seed(1)
# C L H F V T B
SHAPE = {"tiny": (128, 4, 4, 352, 1024, 128, 16), "small": (256, 6, 8, 688, 2048, 256, 16),
         "medium": (288, 6, 6, 768, 4096, 256, 8)}


class RMSNorm(nn.Module):
    def __init__(self, C):
        super().__init__()
        self.w = nn.Parameter(torch.ones(C))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.w


# Pairs (i, i + hs/2): less work for PyTorch than interleaved ones, and the same model.
def rope(x, cos, sin):
    h = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., h:], x[..., :h]], -1) * sin


class Layer(nn.Module):
    def __init__(self, C, H, hidden):
        super().__init__()
        self.H, self.norm1, self.norm2 = H, RMSNorm(C), RMSNorm(C)
        self.qkv, self.o = nn.Linear(C, 3 * C, bias=False), nn.Linear(C, C, bias=False)
        self.gate_up = nn.Linear(C, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, C, bias=False)

    def forward(self, x, cos, sin, mask):
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.H, C // self.H).permute(2, 0, 3, 1, 4)
        s = rope(q, cos, sin) @ rope(k, cos, sin).transpose(-1, -2) * (self.H / C) ** 0.5
        p = s.masked_fill(mask, -math.inf).softmax(-1)
        x = x + self.o((p @ v).transpose(1, 2).reshape(B, T, C))
        g, u = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(g) * u)


class Model(nn.Module):
    def __init__(self, C, L, H, hidden, V):
        super().__init__()
        self.embd, self.norm = nn.Embedding(V, C), RMSNorm(C)
        self.head = nn.Linear(C, V, bias=False)
        self.layers = nn.ModuleList(Layer(C, H, hidden) for _ in range(L))
        turn = 10000.0 ** (-torch.arange(0, C // H, 2).float() / (C // H))
        angle = torch.outer(torch.arange(512).float(), turn)
        angle = torch.cat([angle, angle], -1)
        self.cos, self.sin = angle.cos(), angle.sin()

    def forward(self, ids, target):
        T = ids.shape[1]
        x, mask = self.embd(ids), torch.ones(T, T, dtype=torch.bool).triu(1)
        for layer in self.layers:
            x = layer(x, self.cos[:T], self.sin[:T], mask)
        logits = self.head(self.norm(x)).flatten(0, 1)
        return F.cross_entropy(logits, target.flatten(), ignore_index=-100)


def bench(part, name):
    C, L, H, hidden, V, T, B = SHAPE[name]
    if part == "train":
        ids = torch.randint(0, V, (B, T + 1))
        ids, target = ids[:, :-1], ids[:, 1:].contiguous()
    else:
        # condition and target
        lengths = [(24 + i * 11 % 16 + 8 + i * 37 % 64, 8 + i * 37 % 64) for i in range(32)]
        longest = max(c + t for c, t in lengths) - 1
        ids = torch.zeros(32, longest, dtype=torch.long)
        target = torch.full((32, longest), -100)
        for i, (c, t) in enumerate(lengths):
            row = torch.randint(0, V, (c + t,))
            ids[i, :c + t - 1], target[i, c - 1:c + t - 1] = row[:-1], row[c:]
    model = Model(C, L, H, hidden, V)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-8,
                              weight_decay=0)
    times, begin = [], 0
    while len(times) < 4 or (len(times) < 1000 and time.perf_counter() - begin < 1):
        start = time.perf_counter()
        begin = begin or start
        model(ids, target).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=False)
        times.append(time.perf_counter() - start)
    t = statistics.median(times[1:])    # the first warms up
    n = int((target >= 0).sum())
    unit = "tokens" if part == "train" else "targets"
    print(f"{part} {name} ms {1e3 * t:.1f} {unit}_per_s {n / t:.1f}")


for part in ("train", "rows"):
    for name in sys.argv[1:] or SHAPE:
        bench(part, name)
