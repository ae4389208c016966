"""Narrow floating point in numpy, and inputs whose products are exact."""

import numpy as np


def bf16(x):
    """Nearest bf16 bits, ties to even, of finite values."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def bf16_value(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def e4m3_value(code):
    """Values of e4m3 codes."""
    code = np.asarray(code, np.int64)
    exponent, digits = code >> 3 & 15, code & 7
    size = np.where(exponent == 0, digits / 512.0, (1 + digits / 8.0) * 2.0 ** (exponent - 7))
    return np.where(code & 127 == 127, np.nan, np.where(code & 128, -size, size))


def e4m3_integers(rng, shape, most=11):
    """Codes of integers up to `most`: 128 products of them sum exactly on every tensor core."""
    table = {float(e4m3_value(c)): c for c in range(256) if c & 127 != 127}
    codes = np.array([table[float(i)] if i else 0 for i in range(-most, most + 1)], np.uint8)
    return codes[rng.integers(0, len(codes), shape)]


def powers_of_two(rng, shape):
    """f32 scales from 2^-3 to 2^2."""
    return (2.0 ** rng.integers(-3, 3, shape)).astype(np.float32)


def block_product(a, b, a_scale, b_scale, block=128):
    """Sum over blocks of K of a·bᵀ times a scale per row and block of a, and one per 128 rows and block of b."""
    a, b = e4m3_value(a), e4m3_value(b)
    out = np.zeros((a.shape[0], b.shape[0]))
    for k in range(0, a.shape[1], block):
        part = a[:, k : k + block] @ b[:, k : k + block].T
        scale = a_scale[:, k // block, None] * np.repeat(b_scale[:, k // block], 128)[None, : b.shape[0]]
        out += part * scale
    return out
