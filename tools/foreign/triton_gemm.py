"""A block-scaled FP8 product in Triton, on the simulated card: compiled without a GPU, compared bit by bit."""

import argparse
import pathlib
import sys
import tempfile

import numpy as np
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from job import Job
from narrow import bf16, block_product, e4m3_integers, powers_of_two


@triton.jit
def scaled_product(a, b, a_scales, b_scales, out, M, N, K, TM: tl.constexpr, TN: tl.constexpr, TK: tl.constexpr):
    """out[M, N] = sum over blocks of 128 of a[M, K] times the transpose of b[N, K], scaled by row and by square."""
    rows = tl.program_id(0) * TM + tl.arange(0, TM)
    columns = tl.program_id(1) * TN + tl.arange(0, TN)
    inner = tl.arange(0, TK)
    blocks = K // 128
    inside = rows < M
    total = tl.zeros((TM, TN), tl.float32)
    for k in range(0, K, TK):
        left = tl.load(a + rows[:, None] * K + (k + inner)[None, :], mask=inside[:, None], other=0.0)
        right = tl.load(b + columns[None, :] * K + (k + inner)[:, None], mask=(columns < N)[None, :], other=0.0)
        left_scale = tl.load(a_scales + rows * blocks + k // 128, mask=inside, other=0.0)
        right_scale = tl.load(b_scales + columns // 128 * blocks + k // 128, mask=columns < N, other=0.0)
        total += tl.dot(left, right) * left_scale[:, None] * right_scale[None, :]
    at = rows[:, None] * N + columns[None, :]
    tl.store(out + at, total.to(tl.bfloat16), mask=inside[:, None] & (columns < N)[None, :])


def compile_for_hopper(tiles, warps, stages):
    pointers = {"a": "*fp8e4nv", "b": "*fp8e4nv", "a_scales": "*fp32", "b_scales": "*fp32", "out": "*bf16"}
    signature = pointers | {"M": "i32", "N": "i32", "K": "i32"} | {name: "constexpr" for name in tiles}
    names = scaled_product.arg_names
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in [*pointers, "K", "N"]}
    source = ASTSource(scaled_product, signature, tiles, aligned)
    options = {"num_warps": warps, "num_stages": stages}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def run(folder, shape, tiles, warps, stages, schedule, rng):
    m, n, k = shape
    kernel = compile_for_hopper(dict(zip(("TM", "TN", "TK"), tiles)), warps, stages)
    job = Job(folder, kernel.asm["ptx"])
    grid = (-(-m // tiles[0]), -(-n // tiles[1]), 1)
    job.launch(grid, 32 * warps, kernel.metadata.shared, schedule=schedule)
    a, b = e4m3_integers(rng, (m, k)), e4m3_integers(rng, (n, k))
    a_scales, b_scales = powers_of_two(rng, (m, k // 128)), powers_of_two(rng, (-(-n // 128), k // 128))
    for name, array in {"a": a, "b": b, "a_scales": a_scales, "b_scales": b_scales}.items():
        job.buffer(name, array)
    job.output("out", (m, n), np.uint16)
    for name in ("a", "b", "a_scales", "b_scales", "out"):
        job.param("pointer", name)
    for value in shape:
        job.param("i32", value)
    # Triton adds its scratch memory, which this kernel does not use.
    job.param("u64", 0)
    job.param("u64", 0)
    arrays, _ = job.run()
    want = bf16(block_product(a, b, a_scales, b_scales))
    return int((arrays["out"] != want).sum()), want.size


CASES = [
    # Shape, tile, warps, stages, schedule.
    ((100, 256, 256), (64, 128, 128), 4, 3, ("eager", 0)),
    ((130, 256, 512), (128, 128, 128), 8, 4, ("late", 1)),
    ((64, 200, 384), (64, 64, 64), 4, 2, ("random", 2)),
    ((17, 128, 256), (16, 64, 128), 4, 3, ("eager", 0)),
    ((40, 128, 256), (32, 128, 128), 4, 3, ("late", 3)),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", help="keep the jobs in this folder")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for number, case in enumerate(CASES):
            folder = pathlib.Path(arguments.keep or scratch) / str(number)
            wrong, of = run(folder, *case, rng)
            failed += wrong != 0
            shape, tile, warps, stages, schedule = case
            print(f"{shape} in {tile}, {warps} warps, {stages} stages, {schedule[0]}: {wrong} of {of} wrong")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
