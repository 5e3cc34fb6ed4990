"""Who speaks when: speech regions, windows, their vectors, clusters of these, and boundaries on a finer grid.

The embedder is an argument. All that is asked of it is that windows of one voice give vectors close together and that
a window in which two voices share the time lies between their vectors.

N windows, D dimensions of a vector, K speakers, S states of the decoder: the speakers, and pairs that speak at once.
"""

import itertools
from dataclasses import asdict, dataclass
from numbers import Integral
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..audio.reading import read_audio
from ..audio.regions import FRAME, RATE, blocks, cut, levels, speech_regions, windows
from ..errors import AudioError, InvalidValue
from ..networks.speaker.mel import log_mel

WINDOW, HOP = 36000, 18000  # samples: 1.5 s every 0.75 s, which tell the speakers
FINE, STEP = 18000, 2400  # samples: 0.75 s every 0.1 s, which tell where one gives way to another
BATCH = 16  # windows given to the embedder at once
LEAST = 0.5  # seconds of speech below which nothing can be told
# Cosine distance about the centre, from which clusters are two voices. Measured on 36 real x-vectors of six speakers:
# one voice in two emotions lies 0.29 apart (median, emotions removed), two voices in 99 % of the pairs 0.46 and more.
THRESHOLD = 0.35
# Spreads (standard deviations of the windows on the line between two clusters) that count as THRESHOLD. A single
# cluster cut in two by its own noise is 2.7 spreads apart if it was normal, 3.5 if uniform; two voices whose windows
# scatter as widely as the voices differ, in ten dimensions, 7.
SPREADS = 4.0
LARGEST = 2000  # windows that are clustered, an even choice of them: linkage is quadratic
SEEDS, CLOSE, FEWEST = 40, 0.15, 3  # clusters to begin with: at most, no finer than, of so many windows
FEW = 12  # clusters among which the windows are shared out anew after every merger
BETWEEN = 0.3  # distance to the line between two others, in lengths of it, below which a cluster is a mixture of both
BARRED = 1e6  # the cost of what cannot be
CHANGE = 0.08  # seconds of full evidence that a change of speaker must be worth
RARE = 0.04  # of full evidence, that two speak at once must be worth at every moment


@dataclass
class Turn:
    """From start to end, in seconds, a speaker talks."""

    start: float
    end: float
    speaker: str


@dataclass
class Diarization:
    """turns: sorted by start; speakers: {name: vector mx.array [D]}, in the order they appear; duration in seconds."""

    turns: list
    speakers: dict
    duration: float

    @property
    def seconds(self):
        """{name: how long each speaks}."""
        told = dict.fromkeys(self.speakers, 0.0)
        for turn in self.turns:
            told[turn.speaker] += turn.end - turn.start
        return told

    @property
    def overlaps(self):
        """[(start, end)] where two speak at once."""
        found, until = [], 0.0
        for turn in self.turns:
            if turn.start < until:
                found.append((turn.start, min(turn.end, until)))
            until = max(until, turn.end)
        return found

    def as_dict(self):
        """What JSON holds: duration, each speaker's seconds, share of all speech and number of turns, and the turns."""
        seconds, total = self.seconds, sum(self.seconds.values())
        speakers = {
            name: {
                "seconds": round(seconds[name], 3),
                "share": round(seconds[name] / total, 4),
                "turns": sum(turn.speaker == name for turn in self.turns),
            }
            for name in self.speakers
        }
        return {"duration": self.duration, "speakers": speakers, "turns": [asdict(turn) for turn in self.turns]}

    def rttm(self, uri="recording"):
        """The turns in NIST's Rich Transcription Time Marked format, a line each; whitespace in `uri` becomes _."""
        uri = "_".join(str(uri).split()) or "recording"
        rows = ((turn.start, turn.end - turn.start, turn.speaker) for turn in self.turns)
        return "".join(f"SPEAKER {uri} 1 {at:.3f} {length:.3f} <NA> <NA> {who} <NA> <NA>\n" for at, length, who in rows)


def embedder(encoder):
    """The function of windows [B, samples] at 24 kHz to vectors [B, D] that a SpeakerEncoder makes."""
    return lambda windows: encoder(mx.stack([log_mel(window, encoder.bands) for window in windows]))


def diarize(
    source,
    embed,
    *,
    space=None,
    num_speakers=None,
    min_speakers=1,
    max_speakers=None,
    threshold=THRESHOLD,
    overlap=False,
    progress=None,
):
    """A Diarization of a recording of any length, whose memory does not grow with it but for a vector a window.

    source: a path, (samples, rate) or samples at 24 kHz. embed: a function of windows [B, samples] float32 at 24 kHz to
    vectors [B, D] (mx.array), called with windows of 1.5 s and of 0.75 s. space: a VoiceSpace to centre with, else
    the recording's own centre. threshold: smaller finds more speakers. overlap: whether to mark where two speak at
    once. progress: called with the seconds of the recording just gone through.

    A speaker needs three windows (some three seconds) to be found unasked. ValueError where there is no speech, or
    less than `num_speakers` or `min_speakers` ask for.
    """
    fewest, most = limits(num_speakers, min_speakers, max_speakers, threshold)
    if not isinstance(source, str | Path):
        source = read_audio(source, RATE)
    level, duration = levels(blocks(source))
    regions = [(first * FRAME, end * FRAME) for first, end in speech_regions(level)]
    spoken = sum(end - first for first, end in regions) / RATE
    if spoken < LEAST:
        name = f"audio {source}" if isinstance(source, str | Path) else "audio"
        raise AudioError(f"{name}: {spoken:.1f} s of speech in {duration:.1f} s of sound; {LEAST} s are needed")
    where, spans = windows(regions, WINDOW, HOP)
    if len(spans) < fewest:
        raise InvalidValue(f"{fewest} speakers cannot be told apart in {spoken:.1f} s of speech")
    vectors = np.concatenate(list(_embedded(source, embed, spans, WINDOW, progress)))
    if progress:
        progress(duration - spans[-1, 1] / RATE)
    mean = vectors.mean(axis=0)

    def centred(x):
        return x - mean if space is None else np.array(space.centred(mx.array(x)))

    x = centred(vectors)
    rounding = 1e-5 * float(np.linalg.norm(vectors, axis=1).mean())
    centroids = _speakers(x, where, spans, fewest, most, threshold, space is not None, rounding)
    if len(centroids) < fewest:
        raise InvalidValue(f"{fewest} speakers cannot be told apart: only {len(centroids)} different sounds were found")
    if len(centroids) == 1:
        return _result([(first, end, 0) for first, end in regions], spans, vectors, duration)
    centroids, _, within = _settle(x, where, centroids)
    unsettled = ~within | (_costs(x, centroids, pairs=True)[:, : len(centroids)].min(axis=1) > 0)
    costs = _costs(x, centroids, overlap)
    if len(centroids) == fewest:  # all are asked for
        unsettled[_pin(costs, fewest)] = False
    fine_where, fine = _around(regions, where[unsettled], spans[unsettled])
    pieces = _embedded(source, embed, fine, FINE)
    fine_costs = [_costs(centred(piece), centroids, overlap) for piece in pieces]
    kept = ~(unsettled & np.isin(where, fine_where))
    found = _turns(
        regions,
        np.concatenate([where[kept], fine_where]),
        np.concatenate([spans[kept], fine]).mean(axis=1),
        np.concatenate([costs[kept], *fine_costs]),
        len(centroids),
    )
    return _result(found, spans, vectors, duration)


def limits(number, fewest, most, threshold):
    """(fewest, most or None) of the speakers asked for; ValueError where that or the threshold cannot be."""
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 2:
        raise InvalidValue(f"threshold {threshold} is not within 0 and 2; it is a cosine distance")
    for name, value in (("num_speakers", number), ("min_speakers", fewest), ("max_speakers", most)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
            raise InvalidValue(f"{name} {value!r} is not a positive integer")
    if most is not None and most < fewest:
        raise InvalidValue(f"max_speakers {most} is less than min_speakers {fewest}")
    if number is None:
        return fewest, most
    if number < fewest or (most is not None and number > most):
        raise InvalidValue(f"num_speakers {number} is not within min_speakers and max_speakers; give one or the others")
    return number, number


def _embedded(source, embed, spans, length, progress=None):
    """The vectors [B, D] of one batch of windows after another, checked."""
    pieces, done = cut(blocks(source), spans.tolist(), length), 0
    for start in range(0, len(spans), BATCH):
        batch = np.stack(list(itertools.islice(pieces, BATCH)))
        vectors = embed(mx.array(batch))
        if not isinstance(vectors, mx.array) or vectors.ndim != 2 or len(vectors) != len(batch):
            shape = list(vectors.shape) if hasattr(vectors, "shape") else type(vectors).__name__
            raise InvalidValue(f"the embedder gave {shape} for {len(batch)} windows; expected an mx.array [B, D]")
        vectors = np.array(vectors.astype(mx.float32))
        if not np.isfinite(vectors).all():
            raise InvalidValue("the embedder gave values that are NaN or infinite")
        yield vectors
        if progress:
            last = int(spans[start + len(batch) - 1, 1])
            progress((last - done) / RATE)
            done = last


# Clusters


def _speakers(x, where, spans, fewest, most, threshold, fixed, rounding):
    """Centroids [K, D] of the speakers among centred vectors x [N, D].

    Average linkage by cosine gives clusters to begin with. The two least apart are merged as long as they are less than
    `threshold` apart, by the cosine of their means and by `_apart`; what lies between two others is shared out among
    its neighbours. What is left must stay apart when the windows are labelled as a sequence, in which noise does not
    last. fixed: whether the centre is given; if not, it is the mean of the centroids, so that who speaks most does not
    draw it to his side.
    """
    chosen = np.unique(np.linspace(0, len(x) - 1, min(LARGEST, len(x))).round().astype(int))
    x, where, shared = x[chosen], where[chosen], _shared(spans[chosen])
    groups = _assign(x, _seeds(x, fewest))
    spreads, settled = {}, False
    while len(groups) > fewest:
        centroids = np.stack([x[group].mean(axis=0) for group in groups])
        mixture = _mixture(centroids)
        if mixture is not None:
            del groups[mixture]
            groups = _assign(x, groups)
            continue
        about = centroids if fixed else centroids - centroids.mean(axis=0)
        about /= np.maximum(np.linalg.norm(about, axis=1, keepdims=True), 1e-12)
        pairs = list(itertools.combinations(range(len(groups)), 2))
        for i, j in pairs:
            key = groups[i].tobytes(), groups[j].tobytes()
            if key not in spreads:
                spreads[key] = _apart(x, shared, groups[i], groups[j], rounding)
        far = [min(1 - about[i] @ about[j], spreads[groups[i].tobytes(), groups[j].tobytes()]) for i, j in pairs]
        least = int(np.argmin(far))
        if far[least] >= threshold and (most is None or len(groups) <= most):
            lasting = [] if settled else _sizeable(_settle(x, where, centroids)[1], 1)
            if len(lasting) < fewest:
                break
            groups, settled = lasting, True
            continue
        i, j = pairs[least]
        groups[i] = np.concatenate([groups[i], groups.pop(j)])
        if len(groups) <= FEW:
            groups = _assign(x, groups)
        settled = False
    return np.stack([x[group].mean(axis=0) for group in groups])


def _seeds(x, fewest):
    """Clusters of x [N, D], as lists of rows: the cut of the tree that gives most of a fair size."""
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import pdist

    if len(x) == 1:
        return [np.arange(1)]
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    tree = hierarchy.average(pdist(unit, "sqeuclidean") / 2)  # cosine distances
    best = [np.arange(len(x))]
    for height in tree[: -SEEDS - 1 : -1, 2]:
        groups = _sizeable(hierarchy.fcluster(tree, max(CLOSE, height), "distance"), FEWEST)
        if len(groups) > len(best):
            best = groups
        if height < CLOSE:
            break
    if len(best) < fewest:  # more are asked for than stand out
        best = _sizeable(hierarchy.fcluster(tree, fewest, "maxclust"), 1)
    return best


def _sizeable(labels, fewest):
    return [np.flatnonzero(labels == k) for k in np.flatnonzero(np.bincount(labels) >= fewest)]


def _assign(x, groups):
    """All of x [N, D] to the nearest of the groups' means."""
    nearest = _costs(x, np.stack([x[group].mean(axis=0) for group in groups])).argmin(axis=1)
    return [members for k in range(len(groups)) if (members := np.flatnonzero(nearest == k)).size]


def _shared(spans):
    """A sparse [N, N] with 1 where two windows have sound in common, themselves included."""
    from scipy import sparse

    first, count = spans[:, 0], len(spans)
    shared = sparse.eye_array(count, format="csr", dtype=np.float32)
    for step in range(1, count):
        close = (first[step:] - first[:-step] < WINDOW).astype(np.float32)
        if not close.any():
            break
        shared += sparse.diags_array([close, close], offsets=[step, -step])
    return shared.tocsr()


def _apart(x, shared, a, b, rounding):
    """How far apart two clusters (rows of x [N, D]) are, as a cosine distance: THRESHOLD where it is SPREADS spreads.

    Every window is projected on the line between the means of both clusters without the windows that share sound with
    it, so that noise does not point at itself; then the medians' distance is divided by the median deviation. Windows
    that share sound with the other cluster, as there are at every change, do not count where there are enough others.
    Small clusters must lie farther apart, as the most deviant of many windows are soon found.
    """
    both = np.concatenate([a, b])
    v, near, in_a = x[both], shared[both][:, both], np.arange(len(both)) < len(a)
    inner_a, inner_b = (own & (near @ (~own).astype(np.float32) == 0) for own in (in_a, ~in_a))
    if min(inner_a.sum(), inner_b.sum()) < FEWEST:
        inner_a, inner_b = in_a, ~in_a

    def others(mask):
        count = mask.sum() - near @ mask.astype(np.float32)
        mean = (v[mask].sum(axis=0) - near @ (v * mask[:, None])) / np.maximum(count, 1)[:, None]
        return mean, count > 0

    (mean_a, known_a), (mean_b, known_b) = others(inner_a), others(inner_b)
    line = mean_a - mean_b
    place = ((v - v.mean(axis=0)) * line).sum(axis=1) / np.maximum(np.linalg.norm(line, axis=1), 1e-12)
    one, two = place[inner_a & known_a & known_b], place[inner_b & known_a & known_b]
    if not one.size or not two.size:
        return 0.0
    deviation = np.median(np.abs(np.concatenate([one - np.median(one), two - np.median(two)])))
    spreads = (np.median(one) - np.median(two)) / max(1.4826 * deviation, rounding)  # of a normal distribution
    return THRESHOLD * spreads / SPREADS / (1 + 2 / min(len(a), len(b)))


def _mixture(centroids):
    """Which of the centroids [K, D] lies on the line between two others, as windows do in which these meet; or None."""
    gram = centroids @ centroids.T
    square = np.maximum(np.diag(gram)[:, None] + np.diag(gram) - 2 * gram, 0)  # distances², [K, K]
    length = np.maximum(square, 1e-12)[None]  # [k, i, j]: of the line from i to j
    along = (square[:, :, None] + square[None] - square[:, None, :]) / 2 / length  # where k lies on it
    aside = np.sqrt(np.maximum(square[:, :, None] / length - along**2, 0))
    aside[(along < 0.2) | (along > 0.8)] = np.inf
    k = int(aside.min(axis=(1, 2)).argmin())
    return k if aside[k].min() < BETWEEN else None


# Boundaries


def _costs(x, centroids, pairs=False):
    """What it costs [N, S] to put x [N, D] down to each speaker, or with `pairs` also to each two at once: squared
    distances, less the smallest, in those of the two speakers most alike."""
    states = centroids
    if pairs:
        i, j = np.triu_indices(len(centroids), 1)  # in the order of itertools.combinations
        states = np.concatenate([centroids, (centroids[i] + centroids[j]) / 2])
    gram = centroids @ centroids.T
    square = np.diag(gram)[:, None] + np.diag(gram) - 2 * gram
    alike = square[np.triu_indices(len(centroids), 1)].min(initial=np.inf)
    costs = (np.square(states).sum(axis=1) - 2 * x @ states.T) / max(alike, 1e-12)
    costs[:, len(centroids) :] += RARE
    return costs - costs.min(axis=1, keepdims=True)


def _viterbi(costs):
    """The cheapest path [N] through costs [N, S] (in seconds), where a change costs CHANGE."""
    count, states = costs.shape
    total, back = costs[0], np.zeros((count, states), int)
    for n in range(1, count):
        best = int(total.argmin())
        stay = total <= total[best] + CHANGE
        back[n] = np.where(stay, np.arange(states), best)
        total = np.where(stay, total, total[best] + CHANGE) + costs[n]
    path = [int(total.argmin())]
    for n in range(count - 1, 0, -1):
        path.append(int(back[n, path[-1]]))
    return np.array(path[::-1])


def _settle(x, where, centroids):
    """Label the windows x [N, D], those of a region as a sequence, and take the centroids [K, D] of the windows within
    turns, until nothing changes: (centroids, labels [N], whether a window [N] is within a turn)."""
    starts, labels = np.flatnonzero(np.diff(where, prepend=-1))[1:], None
    for _ in range(10):
        parts = np.split(_costs(x, centroids) * (HOP / RATE), starts)
        before, labels = labels, np.concatenate([_viterbi(part) for part in parts])
        if np.array_equal(before, labels):
            break
        change = (labels[1:] != labels[:-1]) & (where[1:] == where[:-1])
        within = ~(np.append(change, False) | np.insert(change, 0, False))
        for k in range(len(centroids)):
            own = labels == k
            own = own & within if (own & within).sum() > 1 else own
            if own.any():
                centroids[k] = x[own].mean(axis=0)
    return centroids, labels, within


def _pin(costs, count):
    """Give every speaker one window of `costs` [N, S] for certain, the best there is; returns these windows."""
    from scipy.optimize import linear_sum_assignment

    speakers, pinned = linear_sum_assignment(costs[:, :count].T)
    costs[pinned] = BARRED
    costs[pinned, speakers] = 0
    return pinned


def _around(regions, where, spans):
    """The finer windows around some of the others: (region of each, their (first, end)), as `windows` gives them."""
    found = [(np.zeros(0, int), np.zeros((0, 2), int))]
    for region in np.unique(where):
        first, end = regions[region]
        if end - first > FINE:
            _, fine = windows([(first, end)], FINE, STEP)
            apart = np.abs(fine.mean(axis=1)[:, None] - spans[where == region].mean(axis=1))
            fine = fine[apart.min(axis=1) <= HOP]
            found.append((np.full(len(fine), region), fine))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def _turns(regions, where, centres, costs, count):
    """[(first, end, speaker)] in samples, sorted, from windows by their region, centre and costs [N, S]."""
    members = [(k,) for k in range(count)] + list(itertools.combinations(range(count), 2))
    order, found = np.lexsort((centres, where)), []
    parts = np.split(order, np.searchsorted(where[order], np.arange(1, len(regions))))
    for (first, end), rows in zip(regions, parts, strict=True):
        edges = np.concatenate([[first], (centres[rows][1:] + centres[rows][:-1]) / 2, [end]])
        lengths = np.minimum(np.diff(edges), HOP) / RATE
        path = _honest_path(costs[rows] * lengths[:, None], count)
        ends = np.append(np.flatnonzero(np.diff(path)) + 1, len(path))
        for a, b in itertools.pairwise([0, *ends.tolist()]):
            found += [(edges[a], edges[b], k) for k in members[path[a]]]
    return sorted(found)


def _honest_path(costs, count):
    """`_viterbi`, without the pairs that a mere change explains: until a window of length L has passed one, it looks
    like both voices for L / 2, and like one that joins for however long that one speaks."""
    while True:
        path = _viterbi(costs)
        ends = np.append(np.flatnonzero(np.diff(path)) + 1, len(path))
        short = []
        for a, b in itertools.pairwise([0, *ends.tolist()]):
            joins = a > 0 and b < len(path) and path[a - 1] == path[b]
            if path[a] >= count and (b - a) * STEP < (3 * STEP if joins else FINE / 2 + 2 * STEP):
                short.append((a, b))
        if not short:
            return path
        for a, b in short:
            costs[a:b, count:] = BARRED


def _result(found, spans, vectors, duration):
    """A Diarization of turns [(first, end, speaker)] in samples, sorted."""
    turns, last = [], {}
    for first, end, k in found:
        if k in last and first <= last[k][1]:
            last[k][1] = end
        else:
            last[k] = [first, end, k]
            turns.append(last[k])
    alone = {k: np.zeros(len(spans)) for k in last}  # samples of each window in which k alone speaks
    for first, end, k in turns:
        within = np.clip(np.minimum(spans[:, 1], end) - np.maximum(spans[:, 0], first), 0, None)
        for other in alone:
            alone[other] += within if other == k else -within
    lengths = np.diff(spans)[:, 0]
    speakers = {}
    for k in last:
        share = alone[k] / lengths
        speakers[k] = mx.array(vectors[share >= min(0.95, share.max())].mean(axis=0))
    names = {k: f"speaker_{i + 1}" for i, k in enumerate(last)}
    turns = [Turn(round(float(first) / RATE, 3), round(float(end) / RATE, 3), names[k]) for first, end, k in turns]
    return Diarization(turns, {names[k]: vector for k, vector in speakers.items()}, round(duration, 3))
