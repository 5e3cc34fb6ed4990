"""Small whole numbers as bits in a row, the first number's lowest bit first."""

import numpy as np


def bits_for(size):
    """Bits that numbers below `size` take: 8 for a codebook of 256, 11 for one of 2,048."""
    return max(1, (size - 1).bit_length())


def pack(values, bits):
    """uint8 [ceil(N * bits / 8)] of whole numbers [N, ...] below 2 ** bits; ValueError for others."""
    values = np.ascontiguousarray(values).reshape(-1)
    if values.size and (values.min() < 0 or int(values.max()) >> bits):
        raise ValueError(f"values from {values.min()} to {values.max()} do not fit {bits} bits")
    rows = values.astype("<u2").view(np.uint8).reshape(-1, 2)
    return np.packbits(np.unpackbits(rows, axis=1, bitorder="little")[:, :bits].reshape(-1), bitorder="little")


def unpack(packed, bits, count):
    """uint16 [count] of what `pack` made; ValueError where there are fewer."""
    if len(packed) * 8 < count * bits:
        raise ValueError(f"{len(packed)} bytes hold fewer than {count} numbers of {bits} bits")
    rows = np.zeros((count, 16), np.uint8)
    rows[:, :bits] = np.unpackbits(packed, bitorder="little", count=count * bits).reshape(count, bits)
    return np.packbits(rows, axis=1, bitorder="little").view("<u2").reshape(-1).astype(np.uint16)
