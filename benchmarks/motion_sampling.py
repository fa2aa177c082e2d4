"""Sampling speed of the official-size T2M-GPT transformer: posesyn's cached, batched sampler against the official way.

    python benchmarks/motion_sampling.py --json motion_sampling.json

The baseline is written here after the published loop (Mael-zys/T2M-GPT, ``models/t2m_trans.py``): one motion at a time,
the whole prefix forwarded again for each token, attention with an explicit masked softmax, scores of all positions.
Weights are random (228 M parameters, seed 0) and the same on both sides; both draw the best token (greedy) and the
tokens are compared. END is held back on both sides, so all motions have the same length. CLIP and the decoder take no
part. Wall-clock depends on what else runs: CPU seconds and the load are printed beside it.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from posesyn.synthesis.motion.prior.transformer import MotionTransformer, TransformerConfig


def official_scores(model: MotionTransformer, tokens: list[int], text: Tensor) -> Tensor:
    """(1, 513) scores of the next token, as the official ``forward`` computes them."""
    base, head = model.trans_base, model.trans_head
    x = base.cond_emb(text)[:, None]
    if tokens:
        x = torch.cat([x, base.tok_emb(torch.tensor([tokens]))], 1)
    x = x + base.pos_embed.embed[: x.shape[1], 0]
    length, width = x.shape[1:]
    for block in [*base.blocks, *head.blocks]:
        attention, y = block.attn, block.ln1(x)
        key, query, value = (
            layer(y).view(1, length, attention.heads, -1).transpose(1, 2)
            for layer in (attention.key, attention.query, attention.value)
        )
        weights = (query @ key.transpose(-2, -1)) * (1.0 / math.sqrt(key.shape[-1]))
        weights = weights.masked_fill(attention.mask[:, :, :length, :length] == 0, -torch.inf).softmax(-1)
        x = x + attention.proj((weights @ value).transpose(1, 2).reshape(1, length, width))
        x = x + block.mlp(block.ln2(x))
    return head.head(head.ln_f(x))[:, -1]


@torch.no_grad()
def official_sample(model: MotionTransformer, text: Tensor, count: int) -> list[int]:
    """The best tokens, one by one."""
    tokens: list[int] = []
    for _ in range(count):
        scores = official_scores(model, tokens, text).double()
        scores[:, model.config.end] = -torch.inf
        tokens.append(int(scores.softmax(-1).argmax()))
    return tokens


def measured(cases: Sequence[tuple[Callable[[], list], int]], repeats: int) -> list[dict]:
    """Per case (run, motions): seconds and CPU seconds per motion, peak memory after its first run, and its result.

    Cases take turns, so that load from elsewhere falls on all of them; ratios are to the first case of the same turn.
    """
    wall, cpu, rows = [[[] for _ in cases] for _ in range(2)] + [[{} for _ in cases]]
    for turn in range(repeats):
        for index, (run, motions) in enumerate(cases):
            start, busy = time.perf_counter(), time.process_time()
            rows[index]["result"] = run()
            wall[index].append((time.perf_counter() - start) / motions)
            cpu[index].append((time.process_time() - busy) / motions)
            if turn == 0:
                rows[index]["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for index, row in enumerate(rows):
        row |= {
            "seconds": statistics.median(wall[index]),
            "seconds_range": [min(wall[index]), max(wall[index])],
            "cpu_seconds": statistics.median(cpu[index]),
            "ratio": statistics.median(a / b for a, b in zip(wall[0], wall[index])),
            "cpu_ratio": statistics.median(a / b for a, b in zip(cpu[0], cpu[index])),
            "runs": repeats,
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="motion_sampling.json", help="where the figures are written")
    parser.add_argument("--tokens", type=int, default=49, help="49 tokens are the 196 frames of the evaluation")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = MotionTransformer(TransformerConfig()).eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    texts = torch.randn(max(options.batches), 512)
    start_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{parameters / 1e6:.1f} M parameters, {options.tokens} tokens, {options.threads} thread(s), "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, torch {torch.__version__}"
    )
    official_sample(model, texts[:1], 2)  # first calls allocate
    cases: list[tuple[Callable[[], list], int]] = [(lambda: official_sample(model, texts[:1], options.tokens), 1)]
    for batch in options.batches:
        sample = functools.partial(
            model.sample, texts[:batch], max_tokens=options.tokens, min_tokens=options.tokens, greedy=True
        )
        cases.append((sample, batch))
    rows = [
        {"case": "posesyn" if index else "official loop", "batch": batch, **row}
        for index, ((_, batch), row) in enumerate(zip(cases, measured(cases, options.repeats)))
    ]
    truth = [rows[0].pop("result")]
    rows[0]["same_tokens"] = None
    if max(options.batches) > 1:
        truth.append(official_sample(model, texts[1:2], options.tokens))
    for row in rows[1:]:
        row["same_tokens"] = all(a.tolist() == b for a, b in zip(row.pop("result"), truth))
    print(
        f"\n{'':<15}{'batch':>6}{'s/motion':>10}{'range':>16}{'CPU s':>8}{'ratio':>8}{'CPU':>7}{'peak MiB':>10}  tokens"
    )
    for row in rows:
        low, high = row["seconds_range"]
        same = {None: "", True: "identical", False: "DIFFER"}[row["same_tokens"]]
        print(
            f"{row['case']:<15}{row['batch']:>6}{row['seconds']:>10.3f}{f'{low:.3f}-{high:.3f}':>16}"
            f"{row['cpu_seconds']:>8.2f}{row['ratio']:>8.1f}{row['cpu_ratio']:>7.1f}{row['peak_mib']:>10.0f}  {same}"
        )
    print(f"model alone: {start_mib:.0f} MiB; goals: at least 3x at batch 1 and 28x per motion at batch 32")
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "load_average": os.getloadavg()[0],
        "tokens": options.tokens,
        "parameters": parameters,
        "model_mib": start_mib,
        "rows": rows,
    }
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
