"""The cases of `narrowgauge bench` that others can be timed on, under the same names and with the same rows."""

from dataclasses import dataclass

BLOCK = 128
LAYERS = [(2112, 7168), (576, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168), (7168, 2048)]
EXPERTS = [(6144, 7168), (7168, 3072), (4096, 4096), (4096, 2048)]
ROWS = [1, 16, 64, 128, 256, 4096]
CONTIGUOUS = [(4, 8192), (8, 4096)]
MASKED = [(32, 192), (6, 1024), (32, 20), (6, 20)]
MASKED_ROOM = 4096
K_GROUPED = [
    (4, 4096, 7168, 8192),
    (4, 7168, 2048, 8192),
    (8, 4096, 7168, 4096),
    (8, 7168, 2048, 4096),
    (16, 4096, 7168, 2048),
    (16, 7168, 2048, 2048),
]


@dataclass(frozen=True)
class Case:
    kind: str  # dense, gradient, contiguous, masked or k_grouped
    name: str
    n: int
    k: int
    rows: tuple  # of each group; K of each group for k_grouped
    m: int = 0  # rows of the output, where `rows` are K

    @property
    def groups(self):
        return len(self.rows)

    @property
    def flops(self):
        return 2.0 * (self.m or 1) * self.n * sum(self.rows) * (1 if self.m else self.k)

    @property
    def bytes(self):
        """What must move once: operands with their scales, and the output."""
        blocks = lambda extent: -(-extent // BLOCK)
        if self.kind in ("gradient", "k_grouped"):
            k = sum(self.rows)
            return (self.m + self.n) * (k + 4 * blocks(k)) + 4 * self.groups * self.m * self.n
        m = sum(self.rows)
        weights = self.groups * (self.n * self.k + 4 * blocks(self.n) * blocks(self.k))
        return m * (self.k + 4 * blocks(self.k)) + weights + 2 * m * self.n


def share(each, groups, group):
    """Of about `each`, from 0.7 to 1.3 of it: the rule of the command line's cases."""
    if groups == 1:
        return each
    place = (5 * group + 3) % groups
    return int(each * (0.7 + 0.6 * place / (groups - 1)) + 0.5)


def cases():
    all = []
    for n, k in LAYERS:
        all += [Case("dense", f"fp8_gemm/{m}x{n}x{k}", n, k, (m,)) for m in ROWS]
        # Rows and columns of a weight, and tokens.
        all.append(Case("gradient", f"fp8_gradient_gemm/{n}x{k}x4096", k, 0, (4096,), n))
    for n, k in EXPERTS:
        for groups, each in CONTIGUOUS:
            rows = tuple(share(each, groups, group) for group in range(groups))
            all.append(Case("contiguous", f"contiguous_fp8_gemm/{groups}x{each}x{n}x{k}", n, k, rows))
        for groups, each in MASKED:
            rows = tuple(share(each, groups, group) for group in range(groups))
            all.append(Case("masked", f"masked_fp8_gemm/{groups}x{each}x{n}x{k}", n, k, rows))
    for groups, m, n, each in K_GROUPED:
        ks = tuple(max(share(each, groups, group) // BLOCK * BLOCK, BLOCK) for group in range(groups))
        all.append(Case("k_grouped", f"k_grouped_fp8_gemm/{groups}x{m}x{n}x{each}", n, 0, ks, m))
    return all
