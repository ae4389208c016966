"""Times other people's FP8 products on the shapes of `narrowgauge bench`, and writes the same kind of record."""

import argparse
import datetime
import json
import pathlib
import statistics
import subprocess
import sys

from shapes import cases

WARM_UPS, RUNS = 3, 21
PROTOCOL = "median of 21 runs between two events, each behind a flush of twice the L2, after 3 warm-ups"
# Published dense FP8 TFLOPS and GB/s, to say what share of them a time is.
CEILINGS = {"H200": (1979.0, 4800.0), "H800": (1979.0, 3350.0), "H20": (296.0, 4000.0), "H100": (1979.0, 3350.0)}
STATE = ["name", "driver_version", "clocks.sm", "clocks.mem", "power.limit", "temperature.gpu"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="only the cases and their operations")
    parser.add_argument("--filter", default="", help="only cases with this in their name")
    parser.add_argument("--peer", action="append", help="only this contender (may be given several times)")
    parser.add_argument("--narrowgauge", type=pathlib.Path, help="our command line: it runs each case before and after the others")
    parser.add_argument("--record", type=pathlib.Path, default=pathlib.Path("benches/record"), help="folder of the record")
    return parser.parse_args()


def card(torch):
    name = torch.cuda.get_device_name()
    return next((card for card in sorted(CEILINGS, key=len, reverse=True) if card in name), name)


def seconds(torch, run, flush):
    """The median over runs of which each finds nothing of its operands in L2."""
    times = []
    for attempt in range(WARM_UPS + RUNS):
        torch.add(flush[0], flush[0], out=flush[1])
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        run()
        after.record()
        after.synchronize()
        if attempt >= WARM_UPS:
            times.append(before.elapsed_time(after) / 1e3)
    return statistics.median(times)


def row(case, peer, time, ceilings):
    tflops, gbps = case.flops / time / 1e12, case.bytes / time / 1e9
    measured = {"microseconds": time * 1e6, "tflops": tflops, "gbps": gbps, "runs": RUNS}
    if ceilings:
        tensor, memory = tflops / ceilings[0], gbps / ceilings[1]
        measured["share_of_ceiling"] = max(tensor, memory)
        measured["limiter"] = "tensor cores" if tensor > memory else "memory"
    return {"case": case.name, "peer": peer, "measured": measured}


def ours(binary, case):
    """One run of our own command line, which is a process of its own."""
    command = [str(binary), "bench", "--device", "cuda:0", "--json", "--filter", case.name]
    output = subprocess.run(command, capture_output=True, text=True)
    if output.returncode:
        print(f"  narrowgauge: {output.stderr.strip()}")
        return None
    rows = json.loads(output.stdout)["rows"]
    return next(row["measured"] for row in rows if row["case"] == case.name)


def state():
    query = ["nvidia-smi", f"--query-gpu={','.join(STATE)}", "--format=csv,noheader"]
    try:
        line = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None
    return dict(zip(STATE, (value.strip() for value in line.split(","))))


def measure(torch, options, chosen):
    from contenders import CONTENDERS, Missing, Operands

    wanted = {name: make for name, make in CONTENDERS.items() if not options.peer or name in options.peer}
    ceilings = CEILINGS.get(card(torch))
    half = max(torch.cuda.get_device_properties(0).L2_cache_size, 64 << 20) // 2
    flush = [torch.zeros(half, dtype=torch.bfloat16, device="cuda") for _ in range(2)]
    rows, told = [], set()
    for case in chosen:
        print(case.name)
        mine = [ours(options.narrowgauge, case)] if options.narrowgauge else []
        operands = Operands(case)
        for peer, make in wanted.items():
            try:
                run, result = make(case, operands)
                if result is not None and case.kind == "dense" and sum(case.rows) <= 256:
                    expected = operands.reference()
                    error = (result().float() - expected).norm() / expected.norm()
                    # bf16 rounds by 2^-9 at most; the tensor core drops bits of its sums.
                    if not error < 0.01:
                        print(f"  {peer}: WRONG, relative error {error:.3g}")
                        rows.append({"case": case.name, "peer": peer, "wrong": float(error)})
                        continue
                time = seconds(torch, run, flush)
            except Missing as missing:
                if (peer, str(missing)) not in told:
                    told.add((peer, str(missing)))
                    print(f"  {peer}: left out, {missing}")
                continue
            except Exception as error:  # a peer that does not run is news, and no reason to stop
                print(f"  {peer}: failed, {str(error).splitlines()[0][:160] if str(error) else type(error).__name__}")
                rows.append({"case": case.name, "peer": peer, "failed": str(error)[:400]})
                continue
            rows.append(row(case, peer, time, ceilings))
            print(f"  {peer:20} {time * 1e6:9.1f} us {rows[-1]['measured']['tflops']:8.1f} TFLOPS")
        del operands
        torch.cuda.empty_cache()
        if options.narrowgauge:
            mine = [one for one in [*mine, ours(options.narrowgauge, case)] if one]
            for one in mine:
                rows.append({"case": case.name, "peer": "narrowgauge", "measured": one})
                print(f"  {'narrowgauge':20} {one['microseconds']:9.1f} us {one['tflops']:8.1f} TFLOPS")
    return rows


def write(folder, record):
    folder = folder / record["card"].lower().replace(" ", "-").replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    stem, number = f"{record['date']}-peers", 1
    while (path := folder / f"{stem}{f'-{number}' if number > 1 else ''}.json").exists():
        number += 1
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(path)


def main():
    options = arguments()
    chosen = [case for case in cases() if options.filter in case.name]
    if options.list:
        print("\n".join(f"{case.name} {case.flops:.0f}" for case in chosen))
        return 0
    try:
        import torch
    except ImportError as error:
        print(f"no PyTorch: {error}", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("no GPU: times are only taken on a card (--list shows the cases)", file=sys.stderr)
        return 2
    rows = measure(torch, options, chosen)
    write(
        options.record,
        {
            "device": torch.cuda.get_device_name(),
            "card": card(torch),
            "simulated": False,
            "source": "peers",
            "versions": {"torch": torch.__version__, "cuda": torch.version.cuda},
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
            "protocol": PROTOCOL,
            "state": state(),
            "rows": rows,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
