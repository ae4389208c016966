"""Who can compute a case, and how. Each returns a function that launches once, and its output, or says why it cannot."""

import importlib

import torch

from shapes import BLOCK, MASKED_ROOM

FP8 = torch.float8_e4m3fn


class Missing(Exception):
    """A contender that is not installed, or does not do this."""


def blocks(extent):
    return -(-extent // BLOCK)


class Operands:
    """Random numbers of one case: zeros would run faster. Scales by 128 of K, for rows and for squares."""

    def __init__(self, case):
        self.case = case
        self.generator = torch.Generator("cuda").manual_seed(1)
        fine = case.kind in ("gradient", "k_grouped")
        self.k = sum(case.rows) if fine else case.k
        self.m = case.m if fine else sum(case.rows)
        self.a = self.numbers(self.m, self.k)
        self.a_scales = self.scales(self.m, blocks(self.k))
        if fine:
            self.b, self.b_scales = self.numbers(case.n, self.k), self.scales(case.n, blocks(self.k))
        else:
            lead = (case.groups,) if case.kind != "dense" else ()
            self.b = self.numbers(*lead, case.n, self.k)
            self.b_scales = self.scales(*lead, blocks(case.n), blocks(self.k))

    def numbers(self, *shape):
        out = torch.empty(shape, dtype=FP8, device="cuda")
        # By slices: the numbers before rounding take twice the room.
        for part in out.view(-1).split(1 << 26):
            part.copy_(torch.randn(part.shape, device="cuda", dtype=torch.bfloat16, generator=self.generator))
        return out

    def scales(self, *shape):
        return torch.rand(shape, device="cuda", generator=self.generator) * 0.5 + 0.5

    def reference(self):
        """A dense product in f32."""
        wide = lambda scales, rows: scales.repeat_interleave(BLOCK, -1)[..., : self.k].float() * rows.float()
        b_scales = self.b_scales.repeat_interleave(BLOCK, 0)[: self.b.shape[0]]
        return wide(self.a_scales, self.a) @ wide(b_scales, self.b).T


def by_columns(scales, multiple=4):
    """The same values with rows adjacent, columns padded to a multiple."""
    rows, columns = scales.shape
    room = torch.zeros((columns, -(-rows // multiple) * multiple), device="cuda")
    room[:, :rows] = scales.T
    return room[:, :rows].T


def cublaslt_tensor(case, operands):
    """One scale for A and one for B: less work than ours, an upper line."""
    if case.kind != "dense":
        raise Missing("dense products only")
    one = torch.ones((), device="cuda")
    run = lambda: torch._scaled_mm(operands.a, operands.b.T, one, one, out_dtype=torch.bfloat16, use_fast_accum=True)
    return run, None


def cublaslt_rows(case, operands):
    """A scale for each row of A and B: less work than ours."""
    if case.kind != "dense":
        raise Missing("dense products only")
    a_scales = torch.ones((operands.m, 1), device="cuda")
    b_scales = torch.ones((1, case.n), device="cuda")
    run = lambda: torch._scaled_mm(operands.a, operands.b.T, a_scales, b_scales, out_dtype=torch.bfloat16)
    return run, None


def cublaslt_blocks(case, operands):
    if case.kind != "dense":
        raise Missing("dense products only")
    functional = torch.nn.functional
    if not hasattr(functional, "scaled_mm"):
        raise Missing("this torch has no scaled_mm")
    kinds = functional.ScalingType
    # Lengths of columns of B's scales are multiples of 4.
    room = torch.zeros((-(-blocks(operands.k) // 4) * 4, blocks(case.n)), device="cuda").T
    room[:, : blocks(operands.k)] = operands.b_scales
    a_scales, b_scales = by_columns(operands.a_scales), room[:, : blocks(operands.k)].T
    run = lambda: functional.scaled_mm(
        operands.a,
        operands.b.T,
        a_scales,
        kinds.BlockWise1x128,
        b_scales,
        kinds.BlockWise128x128,
        output_dtype=torch.bfloat16,
    )
    return run, run


def triton_blocks(case, operands):
    if case.kind != "dense":
        raise Missing("dense products only")
    try:
        from triton_block import launch
    except ImportError as error:
        raise Missing(f"no Triton: {error}") from error
    out = torch.empty((operands.m, case.n), dtype=torch.bfloat16, device="cuda")
    scales = operands.a_scales.T.contiguous()

    def run():
        launch(operands.a, operands.b, scales, operands.b_scales, out)
        return out

    return run, run


def torch_grouped_rows(case, operands):
    """A scale for each row, no promotion: less work than ours."""
    if case.kind != "contiguous" or not hasattr(torch, "_scaled_grouped_mm"):
        raise Missing("contiguous groups only, in a torch that has _scaled_grouped_mm")
    ends = torch.tensor(case.rows, device="cuda").cumsum(0).int()
    a_scales = torch.ones(operands.m, device="cuda")
    b_scales = torch.ones((case.groups, case.n), device="cuda")
    run = lambda: torch._scaled_grouped_mm(
        operands.a, operands.b.transpose(-2, -1), a_scales, b_scales, offs=ends, out_dtype=torch.bfloat16
    )
    return run, None


def deep_gemm():
    for name in ("deep_gemm", "vllm.third_party.deep_gemm"):
        try:
            return importlib.import_module(name)
        except Exception as error:  # its import compiles and looks for a card
            last = error
    raise Missing(f"no DeepGEMM: {last}")


def deep_gemm_blocks(case, operands):
    library = deep_gemm()
    named = lambda *names: next((getattr(library, name) for name in names if hasattr(library, name)), None)
    a, b = (operands.a, operands.a_scales), (operands.b, operands.b_scales)
    bf16 = lambda *shape: torch.empty(shape, dtype=torch.bfloat16, device="cuda")
    if case.kind == "dense":
        out, product = bf16(operands.m, case.n), library.fp8_gemm_nt

        def run():
            product(a, b, out)
            return out

        return run, run
    if case.kind == "gradient":
        product, out = library.fp8_gemm_nt, torch.zeros((case.m, case.n), device="cuda")
        return lambda: product(a, b, out, c=out, recipe=(1, 1, BLOCK)), None
    if case.kind == "contiguous":
        # It wants groups that start at multiples of 128.
        rooms = [-(-rows // BLOCK) * BLOCK for rows in case.rows]
        data, scales = operands.numbers(sum(rooms), case.k), operands.scales(sum(rooms), blocks(case.k))
        owner = torch.full((sum(rooms),), -1, dtype=torch.int32, device="cuda")
        start = 0
        for group, (rows, room) in enumerate(zip(case.rows, rooms)):
            owner[start : start + rows] = group
            start += room
        out = bf16(sum(rooms), case.n)
        product = named("m_grouped_fp8_gemm_nt_contiguous", "m_grouped_fp8_fp4_gemm_nt_contiguous")
        return lambda: product((data, scales), b, out, owner), None
    if case.kind == "masked":
        data = operands.numbers(case.groups, MASKED_ROOM, case.k)
        scales = operands.scales(case.groups, MASKED_ROOM, blocks(case.k))
        counts = torch.tensor(case.rows, dtype=torch.int32, device="cuda")
        out, expected = bf16(case.groups, MASKED_ROOM, case.n), -(-sum(case.rows) // case.groups)
        product = named("m_grouped_fp8_gemm_nt_masked", "fp8_m_grouped_gemm_nt_masked")
        return lambda: product((data, scales), b, out, counts, expected), None
    flat = lambda data: torch.cat([part.reshape(-1) for part in data.split(list(case.rows), 1)])
    parts = [k // BLOCK for k in case.rows]
    # A matrix [M, K of the group] for each group, one behind the other; scales by 128 of K, then by rows.
    left, right = (flat(operands.a), operands.a_scales.T.contiguous()), (flat(operands.b), operands.b_scales.T.contiguous())
    assert sum(parts) == left[1].shape[0]
    out = torch.zeros((case.groups, case.m, case.n), device="cuda")
    product, ks = library.k_grouped_fp8_gemm_nt_contiguous, torch.tensor(case.rows, dtype=torch.int32, device="cuda")
    return lambda: product(left, right, out, list(case.rows), ks, out), None


CONTENDERS = {
    "deep_gemm": deep_gemm_blocks,
    "cublaslt_blocks": cublaslt_blocks,
    "cublaslt_rows": cublaslt_rows,
    "cublaslt_tensor": cublaslt_tensor,
    "triton_blocks": triton_blocks,
    "torch_grouped_rows": torch_grouped_rows,
}
