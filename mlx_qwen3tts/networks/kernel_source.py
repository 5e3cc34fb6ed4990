"""The bodies of the fused kernels, in what the languages of Metal and CUDA and C++ have in common.

A body runs for a group of threads. `EACH(i, n)` begins what every thread does for its share of i = 0, 1, … below n;
`SYNC` lets the group wait for all of its threads. Nothing that a thread works out by itself is kept from one EACH to
the next outside of SHARED arrays, so that one thread alone, which runs every EACH as a plain loop, computes the same:
this is how the bodies are tested with a C++ compiler.

row and batch number the group; other names in capitals are constants of the compiled form.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """A kernel's name, the names of its arrays, how many threads a group has, and its body.

    packed: whether MLX copies inputs that are not contiguous first; the body minds their strides otherwise.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    threads: int
    packed: bool
    body: str


# What the bodies need of each language: declarations, and what stands in front of a body. MLX looks there for the names
# of Metal's attributes, and not into macros.
HEADERS = {
    "metal": """
#define SHARED(type, name, size) threadgroup type name[size]
#define SYNC threadgroup_barrier(metal::mem_flags::mem_threadgroup)
#define RSQRT(x) metal::precise::rsqrt(x)
#define AS_BITS(x) as_type<uint>(x)
#define AS_FLOAT(x) as_type<float>(x)
#define EACH(i, n) for (unsigned i = first; i < (n); i += THREADS)
""",
    "cuda": """
#define SHARED(type, name, size) __shared__ type name[size]
#define SYNC __syncthreads()
#define RSQRT(x) rsqrtf(x)
#define AS_BITS(x) __float_as_uint(x)
#define AS_FLOAT(x) __uint_as_float(x)
#define EACH(i, n) for (unsigned i = first; i < (n); i += THREADS)
""",
}
FIRST_LINES = {
    "metal": """
  const unsigned first = thread_position_in_threadgroup.x;
  const unsigned row = threadgroup_position_in_grid.y, batch = threadgroup_position_in_grid.z;
""",
    "cuda": """
  const unsigned first = threadIdx.x, row = blockIdx.y, batch = blockIdx.z;
""",
}

# A group makes one vector of D numbers: of q, of k, of v, or, where CARRY is set, one that is in the cache already.
# qkv [B, T, HEADS + 2 KV, D], norms [HEADS + KV, D], cosines and sines [positions, D], first_places [B],
# carried [2, B, KV, P, D]; q [B, HEADS, T, D], pair [2, B, KV, P + T, D]. It rounds to T where the plain form does.
QK_ROPE_WRITE = Kernel(
    "qk_rope_write",
    ("qkv", "norms", "epsilon", "cosines", "sines", "first_places", "carried"),
    ("q", "pair"),
    32,
    True,
    """
  const unsigned batches = qkv_shape[0], length = qkv_shape[1], heads = HEADS + 2 * KV;
  const unsigned past = CARRY ? carried_shape[3] : 0, total = past + length;
  SHARED(float, squares, THREADS);
  if (row >= length * heads) {
    const unsigned each = CARRY ? past : 1;  // vectors of a head
    const unsigned number = row - length * heads, place = number % each, head = number / each % KV;
    const unsigned from = (number / each / KV * batches + batch) * KV + head;
    EACH(i, D) {
      pair[(from * total + place) * D + i] = carried[(from * past + place) * D + i];
    }
  } else {
    const unsigned time = row / heads, head = row % heads;
    const unsigned x = ((batch * length + time) * heads + head) * D;
    if (head >= HEADS + KV) {
      const unsigned y = (((batches + batch) * KV + head - HEADS - KV) * total + past + time) * D;
      EACH(i, D) {
        pair[y + i] = qkv[x + i];
      }
    } else {
      EACH(lane, THREADS) {
        float sum = 0;
        for (unsigned i = lane; i < D; i += THREADS) {
          const float value = static_cast<float>(qkv[x + i]);
          sum += value * value;
        }
        squares[lane] = sum;
      }
      SYNC;
      float sum = 0;
      for (unsigned i = 0; i < THREADS; ++i) {
        sum += squares[i];
      }
      const float scale = RSQRT(sum / D + epsilon[0]);
      const int place = first_places[batch] + static_cast<int>(time);
      const unsigned turn = (place > 0 ? place : 0) * D;  // what lies in the padding may be anything
      EACH(i, D) {
        const unsigned j = i < D / 2 ? i + D / 2 : i - D / 2;
        const float own = static_cast<float>(static_cast<T>(static_cast<float>(qkv[x + i]) * scale));
        const float other = static_cast<float>(static_cast<T>(static_cast<float>(qkv[x + j]) * scale));
        const float a = static_cast<float>(static_cast<T>(own * static_cast<float>(norms[head * D + i])));
        const float b = static_cast<float>(static_cast<T>(other * static_cast<float>(norms[head * D + j])));
        const T y = static_cast<T>(a * cosines[turn + i] + b * sines[turn + i]);
        if (head < HEADS) {
          q[((batch * HEADS + head) * length + time) * D + i] = y;
        } else {
          pair[((batch * KV + head - HEADS) * total + past + time) * D + i] = y;
        }
      }
    }
  }
""",
)

# A group draws one code. logits and noise [B, V], rows apart by their strides; temperatures and kept [B] or [1];
# codes [B]. kept: top-k, 0 for no limit, -1 for the largest logit without noise.
# Logits become integers of the same order, and the k-th largest of them is found bit by bit from the top: the largest
# number that at least k of them reach. Where exactly k reach it, the rest of its bits does not matter.
SAMPLE_ROW = Kernel(
    "sample_row",
    ("logits", "noise", "temperatures", "kept"),
    ("codes",),
    256,
    False,
    """
  const unsigned own = SAME ? 0 : batch;
  const int k = kept[own];
  const float temperature = k < 0 ? 1.0f : temperatures[own];
  SHARED(unsigned, keys, V);
  SHARED(unsigned, counts, THREADS);
  SHARED(unsigned, sums, 16);
  SHARED(float, scores, THREADS);
  SHARED(unsigned, places, THREADS);
  EACH(i, V) {
    const float value = static_cast<float>(logits[batch * logits_strides[0] + i]) / temperature;
    const unsigned bits = value == 0 ? 0 : AS_BITS(value);  // both zeros are one
    keys[i] = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  }
  SYNC;
  unsigned least = 0;
  if (0 < k && k < V) {
    for (int bit = 31; bit >= 0; --bit) {
      const unsigned wanted = least | (1u << bit);
      EACH(lane, THREADS) {
        unsigned count = 0;
        for (unsigned i = lane; i < V; i += THREADS) {
          count += keys[i] >= wanted;
        }
        counts[lane] = count;
      }
      SYNC;
      EACH(part, 16) {
        unsigned sum = 0;
        for (unsigned i = part; i < THREADS; i += 16) {
          sum += counts[i];
        }
        sums[part] = sum;
      }
      SYNC;
      unsigned reached = 0;
      for (unsigned i = 0; i < 16; ++i) {
        reached += sums[i];
      }
      if (reached >= static_cast<unsigned>(k)) {
        least = wanted;
      }
      if (reached == static_cast<unsigned>(k)) {
        break;
      }
    }
  }
  EACH(lane, THREADS) {
    float best = AS_FLOAT(0xff800000u);  // minus infinity
    unsigned place = lane;
    for (unsigned i = lane; i < V; i += THREADS) {
      const unsigned key = keys[i];
      const float value = AS_FLOAT(key & 0x80000000u ? key & 0x7fffffffu : ~key);
      const float score = k < 0 ? value : value + noise[batch * noise_strides[0] + i];
      if (key >= least && score > best) {
        best = score;
        place = i;
      }
    }
    scores[lane] = best;
    places[lane] = place;
  }
  for (unsigned reach = THREADS / 2; reach > 0; reach /= 2) {
    SYNC;
    EACH(lane, reach) {
      const float other = scores[lane + reach];
      const unsigned place = places[lane + reach];
      if (other > scores[lane] || (other == scores[lane] && place < places[lane])) {
        scores[lane] = other;
        places[lane] = place;
      }
    }
  }
  SYNC;
  EACH(i, 1) {
    codes[batch] = places[0];
  }
""",
)

KERNELS = {kernel.name: kernel for kernel in (QK_ROPE_WRITE, SAMPLE_ROW)}
