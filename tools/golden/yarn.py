"""Prints rotary frequencies of Hugging Face transformers, for the test in src/mla/rope.rs."""

from transformers import DeepseekV3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

PUBLISHED = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 40.0,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
CASES = {
    "published": PUBLISHED,
    "untruncated": PUBLISHED | {"truncate": False, "factor": 8.0, "mscale_all_dim": 0.5},
}

print("/// Name, factor of the tables, angle per position of each pair.")
print("const GOLDEN: &[(&str, f64, [f64; 32])] = &[")
for name, parameters in CASES.items():
    config = DeepseekV3Config(qk_rope_head_dim=64, rope_parameters=parameters)
    frequencies, factor = ROPE_INIT_FUNCTIONS["yarn"](config)
    values = ", ".join(repr(float(value)) for value in frequencies)
    print(f'("{name}", {factor!r}, [{values}]),')
plain = [1.0 / 10000.0 ** (i / 64) for i in range(0, 64, 2)]
print(f'("plain", 1.0, {plain!r}),')
print("];")
