"""Contents of files that tests of bad input share."""

import io

import numpy as np

from convert.parity import vector

V = vector(64, 1)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def archive(array):
    buffer = io.BytesIO()
    np.savez(buffer, array)
    return buffer.getvalue()
