"""fixture.py - an independent PyTorch reference: writes tests/fixture.bin for tests/parity.c.

    /usr/bin/python3 tests/fixture.py [OUT [OUT_DPO]]

Written from the definitions, one row at a time, all in float64 and stored as float32: more exact than
what is tested against it. Initial parameters are rounded to float32 before use, so both sides start from
the same numbers. With the seed below, no gradient is so near zero that float32 rounding decides its sign;
Adam makes full steps of such noise. (An unlucky seed differs by 2e-4 after ten steps. With this one, the
same program in float32 differs by 3e-6 in the logits and 3e-7 in the final parameters.) The file has
little-endian i32 and f32:

    i32 magic 0x464C4141 ("AALF"), i32 number of cases: (a) untied head, (b) tied head; then for each case
      i32 V, dim, layers, heads, kv_heads, hidden, context, tied (0 or 1), n_rows
      n_rows times: i32 n_condition, n_total, ids[n_total]
          targets: ids[n_condition..n_total), each predicted from the id before it
      f32 params: token_embd[V][dim];
          for each layer, with kv = dim * kv_heads / heads:
              attn_norm[dim] attn_q[dim][dim] attn_k[kv][dim] attn_v[kv][dim] attn_output[dim][dim]
              ffn_norm[dim] ffn_gate[hidden][dim] (w1) ffn_up[hidden][dim] (w3) ffn_down[dim][hidden] (w2);
          output_norm[dim]; output[V][dim] only if not tied
      f32 logits[n_targets][V]       rows in order, positions in order, at the initial parameters
      f32 loss                       mean cross-entropy over all targets of the batch
      f32 gradients                  d loss / d params, not clipped, in the order of params
      f32 losses[10]                 the loss before each of ten AdamW steps: losses[0] = loss
      f32 params after ten steps     lr 1e-3, betas 0.9 0.95, eps 1e-8, decay 0.1 on matrices, clip 0.5
"""
import struct, sys, os
import torch
import torch.nn.functional as F

torch.manual_seed(4)                                          # not any seed will do: see above
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
V, D, L, H, KV, HID, CONTEXT = 67, 24, 2, 4, 2, 40, 32
HS, STEPS, CLIP = D // H, 10, 0.5
ROWS = [(5, 9), (8, 17), (3, 5), (1, 12)]                     # (n_condition, n_total)

def init(tied):
    matrix = lambda *shape: 0.2 * torch.randn(*shape)
    norm = lambda: 1 + 0.1 * torch.randn(D)
    kv = KV * HS
    params = [matrix(V, D)]
    for _ in range(L):
        params += [norm(), matrix(D, D), matrix(kv, D), matrix(kv, D), matrix(D, D), norm(), matrix(HID, D), matrix(HID, D), matrix(D, HID)]
    params += [norm()] + ([] if tied else [matrix(V, D)])
    return [p.float().double().requires_grad_() for p in params]

def rmsnorm(x, w):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * w

# x [T][heads][HS]: the pair (2i, 2i+1) is a complex number, turned by t * base^(-2i/HS)
def rope(x):
    angle = torch.arange(x.shape[0])[:, None] * 10000.0 ** (-torch.arange(0, HS, 2) / HS)
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], HS // 2, 2))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)[:, None]).reshape(x.shape)

def forward(params, ids):                                     # one row -> logits [T][V]
    p, T = iter(params), len(ids)
    embedding = next(p)
    x = embedding[ids]
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1)       # key after query: not seen
    for _ in range(L):
        attn_norm, wq, wk, wv, wo, ffn_norm, w1, w3, w2 = (next(p) for _ in range(9))
        h = rmsnorm(x, attn_norm)
        q, k, v = rope((h @ wq.T).view(T, H, HS)), rope((h @ wk.T).view(T, KV, HS)), (h @ wv.T).view(T, KV, HS)
        k, v = (y.repeat_interleave(H // KV, dim=1) for y in (k, v))      # query head h reads kv head h / (H/KV)
        scores = torch.einsum("thd,shd->hts", q, k) / HS ** 0.5
        attention = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        x = x + torch.einsum("hts,shd->thd", attention, v).reshape(T, D) @ wo.T
        h = rmsnorm(x, ffn_norm)
        x = x + (F.silu(h @ w1.T) * (h @ w3.T)) @ w2.T
    return rmsnorm(x, next(p)) @ next(p, embedding).T         # tied: the classifier is the embedding

def batch_loss(params, rows):
    logits = torch.cat([forward(params, ids)[n - 1:-1] for n, ids in rows])
    return logits, F.cross_entropy(logits, torch.cat([ids[n:] for n, ids in rows]))

def case(out, tied):
    i32 = lambda *values: out.write(struct.pack(f"<{len(values)}i", *values))
    f32 = lambda tensors: [out.write(struct.pack(f"<{t.numel()}f", *t.detach().flatten().tolist())) for t in tensors]
    params = init(tied)
    rows = [(n, torch.cat([torch.tensor([1]), torch.randint(3, V, (total - 2,)), torch.tensor([2])])) for n, total in ROWS]
    i32(V, D, L, H, KV, HID, CONTEXT, int(tied), len(rows))
    for n, ids in rows:
        i32(n, len(ids), *ids.tolist())
    f32(params)
    optimiser = torch.optim.AdamW([{"params": [p for p in params if p.dim() == 2], "weight_decay": 0.1},
                                   {"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0}], lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step in range(STEPS):
        optimiser.zero_grad()
        logits, loss = batch_loss(params, rows)
        loss.backward()
        grads = [p.grad for p in params]
        if step == 0: f32([logits, loss, *grads])
        norm = torch.sqrt(sum((g * g).sum() for g in grads))
        for g in grads: g.mul_(min(1.0, CLIP / norm.item()))
        optimiser.step()
        losses.append(loss.item())
        print(f"{'tied' if tied else 'untied':7}step {step}  loss {loss.item():.6f}  gradient norm {norm.item():.4f}")
    f32([torch.tensor(losses), *params])

with open(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixture.bin"), "wb") as out:
    out.write(struct.pack("<2i", 0x464C4141, 2))
    for tied in (False, True): case(out, tied)

"""fixture_dpo.bin, the pairs for tests/lab_test.c: i32 magic 0x4F504441 ("ADPO"), the nine numbers of a
case (the last: pairs), the rows, chosen and rejected in turn; f32 beta, params, params of the reference;
then f32 loss and f32 gradients, of DPO (Rafailov et al. 2023) and of the reward model (Bradley-Terry; the
reward is the logit of token 0 at the position of </s>)."""
V, D, L, H, KV, HID, CONTEXT = 23, 16, 1, 2, 1, 20, 32
HS, BETA = D // H, 0.5

def log_p(params, n, ids):
    return forward(params, ids)[n - 1:-1].log_softmax(-1).gather(1, ids[n:, None]).sum()

torch.manual_seed(11)
with open(sys.argv[2] if len(sys.argv) > 2 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixture_dpo.bin"), "wb") as out:
    f32 = lambda tensors: [out.write(struct.pack(f"<{t.numel()}f", *t.detach().flatten().tolist())) for t in tensors]
    policy, reference, rows = init(False), init(False), []
    for n, totals in ((3, (8, 11)), (6, (9, 14)), (1, (7, 4))):
        condition = torch.cat([torch.tensor([1]), torch.randint(3, V, (n - 1,))])
        rows += [(n, torch.cat([condition, torch.randint(3, V, (total - n - 1,)), torch.tensor([2])])) for total in totals]
    out.write(struct.pack("<10i", 0x4F504441, V, D, L, H, KV, HID, CONTEXT, 0, len(rows) // 2))
    for n, ids in rows: out.write(struct.pack(f"<{len(ids) + 2}i", n, len(ids), *ids.tolist()))
    f32([torch.tensor(BETA), *policy, *reference])
    implicit = [BETA * (log_p(policy, n, ids) - log_p(reference, n, ids).detach()) for n, ids in rows]
    reward = [forward(policy, ids)[-1, 0] for n, ids in rows]
    for value in (implicit, reward):
        loss = -F.logsigmoid(torch.stack(value[0::2]) - torch.stack(value[1::2])).mean()
        f32([loss, *torch.autograd.grad(loss, policy, retain_graph=True)])
        print(f"pairs   loss {loss.item():.6f}")
