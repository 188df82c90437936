"""Feeds every reader of foreign bytes with damaged inputs until it is stopped.

    .venv/bin/python -m tests.fuzz [--seconds 60] [--seed N] [--target NAME]

It ends with status 1 at the first input that gives anything but a value or the reader's own error,
or that takes longer than a second, and prints it; the same seed and target find it again.
"""

from __future__ import annotations

import random
import sys
import time

import click

from tests.support.fuzz_targets import TARGETS, Target

SLOW_S = 1.0
LONGEST = 4096
INTERESTING = (b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"{", b"[", b'"', b"\\")


def damaged(draw: random.Random, inputs: list[bytes]) -> bytes:
    """A valid input with bytes changed, cut out, doubled, moved in from another place, cut off."""
    data = bytearray(draw.choice(inputs))
    for _ in range(draw.randint(0, 6)):
        at = draw.randint(0, len(data))
        size = draw.randint(1, 16)
        match draw.randint(0, 5):
            case 0 if data:
                data[min(at, len(data) - 1)] ^= 1 << draw.randint(0, 7)
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = draw.choice(INTERESTING) * draw.choice((1, 1, 1, 2, 100))
            case 3:
                source = draw.choice(inputs)
                start = draw.randint(0, len(source))
                data[at : at + draw.choice((0, size))] = source[start : start + size]
            case 4:
                data[at : at + size] = draw.randbytes(size)
            case _:
                data = data[: draw.randint(0, len(data))]
    return bytes(data[:LONGEST])


def run_one(target: Target, data: bytes) -> str:
    """Why this input is a failure; empty when it is none."""
    started = time.process_time()
    try:
        target.feed(data)
    except target.errors:
        pass
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    taken = time.process_time() - started
    return f"{taken:.1f} s" if taken > SLOW_S else ""


@click.command()
@click.option("--seconds", default=60, show_default=True)
@click.option("--seed", type=int, help="To find the same again.  [default: from the clock]")
@click.option("--target", type=click.Choice(sorted(TARGETS)), help="Only this one.")
def main(seconds: int, seed: int | None, target: str | None) -> None:
    seed = time.time_ns() if seed is None else seed
    click.echo(f"seed {seed}")
    draw = random.Random(seed)
    names = [target] if target else sorted(TARGETS)
    counts = dict.fromkeys(names, 0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name in names:
            for _ in range(50):
                data = damaged(draw, TARGETS[name].inputs)
                counts[name] += 1
                failure = run_one(TARGETS[name], data)
                if failure:
                    click.echo(f"{name}, input {counts[name]}: {failure}\n{data!r}")
                    sys.exit(1)
    click.echo(f"{sum(counts.values())} inputs for {len(names)} readers, nothing found")


if __name__ == "__main__":
    main()
