#!/usr/bin/env python3
"""Makes the golden outputs of a DeepSeek-V3-format checkpoint, and small checkpoints to make them for.

    golden.py make DIR [--preset tiny|grouped|plain|yarn]   a random checkpoint in the published format
    golden.py golden DIR [--prompt TEXT] [--new-tokens N]     DIR/golden.json from Hugging Face transformers

The golden logits are transformers' own DeepSeek-V3 model in float32 on the exactly dequantised weights (e4m3 times
its 128x128 block scale). Beside them stand the logits of the same model with every input of an FP8 projection rounded
to e4m3 with 1x128 scales: the error that FP8 activations cost by themselves, from which tests take their thresholds.
Needs torch, transformers, safetensors and numpy (pip).
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file

BLOCK = 128

COMMON = dict(
    vocab_size=256,
    kv_lora_rank=512,
    qk_rope_head_dim=64,
    qk_nope_head_dim=128,
    v_head_dim=128,
    max_position_embeddings=4096,
    rms_norm_eps=1e-6,
    norm_topk_prob=True,
    num_nextn_predict_layers=0,
    tie_word_embeddings=False,
    rope_theta=10000.0,
    model_type="deepseek_v3",
    architectures=["DeepseekV3ForCausalLM"],
    scoring_func="sigmoid",
    topk_method="noaux_tc",
    hidden_act="silu",
    torch_dtype="bfloat16",
    quantization_config=dict(
        quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[BLOCK, BLOCK]
    ),
)

PRESETS = {
    # What the repository ships: every kind of layer once, under 4 MB.
    "tiny": dict(
        hidden_size=256, intermediate_size=384, moe_intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, n_shared_experts=1, n_routed_experts=12, n_group=4, topk_group=2,
        num_experts_per_tok=4, q_lora_rank=192, first_k_dense_replace=1, routed_scaling_factor=2.5,
    ),
    "grouped": dict(
        hidden_size=512, intermediate_size=768, moe_intermediate_size=128, num_hidden_layers=3,
        num_attention_heads=16, num_key_value_heads=16, n_shared_experts=1, n_routed_experts=16, n_group=4,
        topk_group=2, num_experts_per_tok=4, q_lora_rank=256, first_k_dense_replace=1, routed_scaling_factor=2.5,
    ),
    # No query compression, no expert groups, two shared experts, widths that are no power of two.
    "plain": dict(
        hidden_size=320, intermediate_size=448, moe_intermediate_size=192, num_hidden_layers=2,
        num_attention_heads=6, num_key_value_heads=6, n_shared_experts=2, n_routed_experts=12, n_group=1, topk_group=1,
        num_experts_per_tok=3, q_lora_rank=None, first_k_dense_replace=0, routed_scaling_factor=1.0,
    ),
    "yarn": dict(
        hidden_size=384, intermediate_size=512, moe_intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=8, num_key_value_heads=8, n_shared_experts=1, n_routed_experts=24, n_group=3, topk_group=2,
        num_experts_per_tok=6, q_lora_rank=128, first_k_dense_replace=1, routed_scaling_factor=2.5,
        rope_scaling=dict(type="yarn", factor=40, original_max_position_embeddings=64, beta_fast=32, beta_slow=1,
                          mscale=1.0, mscale_all_dim=1.0),
    ),
}


def quantise(weight):
    """e4m3 data and 128x128 block scales (`weight_scale_inv`) of a float32 matrix."""
    rows, cols = weight.shape
    padded = torch.zeros(-(-rows // BLOCK) * BLOCK, -(-cols // BLOCK) * BLOCK)
    padded[:rows, :cols] = weight
    blocks = padded.view(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
    scale = blocks.abs().amax(dim=(1, 3)).clamp(min=1e-12) / 448.0
    data = (blocks / scale[:, None, :, None]).reshape(padded.shape)[:rows, :cols]
    return data.to(torch.float8_e4m3fn), scale


def dequantise(data, scale):
    rows, cols = data.shape
    full = scale.repeat_interleave(BLOCK, 0)[:rows].repeat_interleave(BLOCK, 1)[:, :cols]
    return data.to(torch.float32) * full


def random_checkpoint(config, seed):
    """Tensors by their published names. Weights keep activations near unit size, so that every layer matters."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator)
    tensors = {}

    def linear(name, out_features, in_features):
        weight = normal(out_features, in_features) * in_features**-0.5
        data, scale = quantise(weight)
        tensors[f"{name}.weight"] = data
        tensors[f"{name}.weight_scale_inv"] = scale

    def norm(name, size):
        tensors[f"{name}.weight"] = (1.0 + 0.1 * normal(size)).to(torch.bfloat16)

    def mlp(name, hidden, inner):
        linear(f"{name}.gate_proj", inner, hidden)
        linear(f"{name}.up_proj", inner, hidden)
        linear(f"{name}.down_proj", hidden, inner)

    c = argparse.Namespace(**config)
    hidden, heads = c.hidden_size, c.num_attention_heads
    qk = c.qk_nope_head_dim + c.qk_rope_head_dim
    tensors["model.embed_tokens.weight"] = normal(c.vocab_size, hidden).to(torch.bfloat16)
    tensors["lm_head.weight"] = (normal(c.vocab_size, hidden) * hidden**-0.5).to(torch.bfloat16)
    norm("model.norm", hidden)
    for layer in range(c.num_hidden_layers):
        at = f"model.layers.{layer}"
        norm(f"{at}.input_layernorm", hidden)
        norm(f"{at}.post_attention_layernorm", hidden)
        if c.q_lora_rank is None:
            linear(f"{at}.self_attn.q_proj", heads * qk, hidden)
        else:
            linear(f"{at}.self_attn.q_a_proj", c.q_lora_rank, hidden)
            norm(f"{at}.self_attn.q_a_layernorm", c.q_lora_rank)
            linear(f"{at}.self_attn.q_b_proj", heads * qk, c.q_lora_rank)
        linear(f"{at}.self_attn.kv_a_proj_with_mqa", c.kv_lora_rank + c.qk_rope_head_dim, hidden)
        norm(f"{at}.self_attn.kv_a_layernorm", c.kv_lora_rank)
        linear(f"{at}.self_attn.kv_b_proj", heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank)
        linear(f"{at}.self_attn.o_proj", hidden, heads * c.v_head_dim)
        if layer < c.first_k_dense_replace:
            mlp(f"{at}.mlp", hidden, c.intermediate_size)
            continue
        tensors[f"{at}.mlp.gate.weight"] = (normal(c.n_routed_experts, hidden) * hidden**-0.5).to(torch.bfloat16)
        tensors[f"{at}.mlp.gate.e_score_correction_bias"] = 0.1 * normal(c.n_routed_experts)
        for expert in range(c.n_routed_experts):
            mlp(f"{at}.mlp.experts.{expert}", hidden, c.moe_intermediate_size)
        mlp(f"{at}.mlp.shared_experts", hidden, c.moe_intermediate_size * c.n_shared_experts)
    return tensors


def load_reference(directory):
    """transformers' model in float32 on the dequantised weights."""
    from transformers import AutoModelForCausalLM

    config = json.loads((directory / "config.json").read_text())
    config.pop("quantization_config", None)
    tensors = {}
    for file in sorted(directory.glob("*.safetensors")):
        tensors.update(load_file(file))
    exact = {}
    for name, tensor in tensors.items():
        if name.endswith("_scale_inv"):
            continue
        scale = tensors.get(f"{name}_scale_inv")
        exact[name] = (dequantise(tensor, scale) if scale is not None else tensor.to(torch.float32)).contiguous()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
        save_file(exact, folder / "model.safetensors", metadata={"format": "pt"})
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def round_to_fp8(x):
    """Each run of 128 along the last axis rounded to e4m3 under its own scale."""
    shape = x.shape
    pad = -shape[-1] % BLOCK
    groups = torch.nn.functional.pad(x, (0, pad)).reshape(-1, BLOCK)
    scale = groups.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 448.0
    rounded = (groups / scale).to(torch.float8_e4m3fn).to(torch.float32) * scale
    return rounded.reshape(*shape[:-1], shape[-1] + pad)[..., : shape[-1]]


def with_fp8_activations(model, ids):
    """Logits with the inputs of all FP8 projections rounded: what FP8 activations cost by themselves."""
    linear = torch.nn.functional.linear
    # Router, head and kv_b_proj (absorbed into the attention) take bf16 inputs in an engine. The router casts its
    # weight to a new tensor, so that only the shape tells it.
    exact = ("mlp.gate.weight", "lm_head.weight", "kv_b_proj.weight")
    shapes = {tuple(p.shape) for name, p in model.named_parameters() if name.endswith(exact)}
    quantised = {id(p) for name, p in model.named_parameters() if not name.endswith(exact)}

    def rounding(x, weight, bias=None):
        keep = tuple(weight.shape) in shapes and id(weight) not in quantised
        return linear(x if keep else round_to_fp8(x), weight, bias)

    torch.nn.functional.linear = rounding
    try:
        return model(ids).logits[0]
    finally:
        torch.nn.functional.linear = linear


def golden(directory, prompt, new_tokens):
    model = load_reference(directory)
    ids = torch.tensor([list(prompt.encode())])
    with torch.no_grad():
        logits = model(ids).logits[0]
        noisy = with_fp8_activations(model, ids)
        sequence = ids
        for _ in range(new_tokens):
            step = model(sequence).logits[0, -1]
            sequence = torch.cat([sequence, step.argmax().reshape(1, 1)], dim=1)
    top2 = logits.topk(2, dim=-1).values
    error = (noisy - logits).norm(dim=-1) / logits.norm(dim=-1)
    rounded = lambda t: [[round(float(v), 5) for v in row] for row in t]
    result = dict(
        input_ids=ids[0].tolist(),
        greedy=sequence[0, ids.shape[1]:].tolist(),
        argmax=logits.argmax(-1).tolist(),
        top2_gap=[round(float(v), 4) for v in top2[:, 0] - top2[:, 1]],
        fp8_activations=dict(
            median_error=round(float(error.median()), 5),
            argmax_agreement=round(float((noisy.argmax(-1) == logits.argmax(-1)).float().mean()), 5),
        ),
        logits=rounded(logits),
    )
    (directory / "golden.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")
    print(f"{directory}: {result['fp8_activations']}, greedy {result['greedy']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write a random checkpoint")
    make.add_argument("dir", type=pathlib.Path)
    make.add_argument("--preset", choices=PRESETS, default="tiny")
    make.add_argument("--seed", type=int, default=1)
    make.add_argument("--shards", type=int, default=1)
    gold = commands.add_parser("golden", help="write golden.json beside a checkpoint")
    gold.add_argument("dir", type=pathlib.Path)
    gold.add_argument("--prompt", default="The quick brown fox jumps over the lazy dog, and then it naps.")
    gold.add_argument("--new-tokens", type=int, default=8)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    if args.command == "golden":
        golden(args.dir, args.prompt, args.new_tokens)
        return
    config = COMMON | PRESETS[args.preset]
    args.dir.mkdir(parents=True, exist_ok=True)
    (args.dir / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tensors = random_checkpoint(config, args.seed)
    names = sorted(tensors)
    for shard, part in enumerate(np.array_split(np.array(names), args.shards)):
        name = "model" if args.shards == 1 else f"model-{shard + 1:05}-of-{args.shards:05}"
        save_file({n: tensors[n].contiguous() for n in part}, args.dir / f"{name}.safetensors")


if __name__ == "__main__":
    main()
