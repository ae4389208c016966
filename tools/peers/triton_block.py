"""A block-scaled FP8 product in Triton: what one gets without hand-written code."""

import itertools

import triton
import triton.language as tl


def configurations():
    sizes = itertools.product((16, 32, 64, 128), (32, 64, 128), (3, 4, 5))
    # Two warpgroups where there are two times 64 rows.
    return [
        triton.Config({"TM": tm, "TN": tn, "GROUP": 16}, num_warps=8 if tm == 128 else 4, num_stages=stages)
        for tm, tn, stages in sizes
    ]


@triton.autotune(configurations(), key=["M_CLASS", "N", "K"])
@triton.jit
def block_product(
    a, b, a_scales, b_scales, out, M, M_CLASS, N, K, TM: tl.constexpr, TN: tl.constexpr, GROUP: tl.constexpr
):
    """out[M, N] = A · Bᵀ; A's scales lie by 128 of K, then by rows; B's are those of 128×128."""
    place = tl.program_id(0)
    down, across = tl.cdiv(M, TM), tl.cdiv(N, TN)
    first = place // (GROUP * across) * GROUP
    height = min(down - first, GROUP)
    row = first + place % (GROUP * across) % height
    column = place % (GROUP * across) // height
    rows = row * TM + tl.arange(0, TM)
    columns = column * TN + tl.arange(0, TN)
    inner = tl.arange(0, 128)
    # Rows and columns beyond the ends repeat earlier ones, so that only stores need a mask.
    left = a + (rows % M)[:, None] * K + inner[None, :]
    right = b + (columns % N)[None, :] * K + inner[:, None]
    blocks = tl.cdiv(K, 128)
    total = tl.zeros((TM, TN), tl.float32)
    for block in range(0, blocks):
        x, y = tl.load(left + block * 128), tl.load(right + block * 128)
        x_scale = tl.load(a_scales + block * M + rows % M)
        y_scale = tl.load(b_scales + (columns % N) // 128 * blocks + block)
        total += tl.dot(x, y) * x_scale[:, None] * y_scale[None, :]
    inside = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(out + rows[:, None] * N + columns[None, :], total.to(tl.bfloat16), mask=inside)


def launch(a, b, a_scales, b_scales, out):
    (m, k), n = a.shape, b.shape[0]
    grid = lambda tile: (triton.cdiv(m, tile["TM"]) * triton.cdiv(n, tile["TN"]),)
    block_product[grid](a, b, a_scales, b_scales, out, m, triton.next_power_of_2(m), n, k)
