"""Two rows of phones side by side: what was meant and what was heard."""


def aligned(meant, heard):
    """The cheapest alignment: pairs (place in `meant` or None, place in `heard` or None), in order."""
    rows = [list(range(len(heard) + 1))]
    for i, one in enumerate(meant, 1):
        before, row = rows[-1], [i]
        for j, other in enumerate(heard, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (one != other)))
        rows.append(row)
    found, i, j = [], len(meant), len(heard)
    while i or j:
        if i and j and rows[i][j] == rows[i - 1][j - 1] + (meant[i - 1] != heard[j - 1]):
            i, j = i - 1, j - 1
            found.append((i, j))
        elif i and rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
            found.append((i, None))
        else:
            j -= 1
            found.append((None, j))
    return found[::-1]


def word_errors(meant, heard, words):
    """Words that are heard wrong: those with a phone changed, left out, or put in between two of their own.

    meant: phones; words: the number of the word that each is of; heard: phones.
    """
    wrong, last = set(), None
    for i, j in aligned(meant, heard):
        if i is None:
            if last is not None and last + 1 < len(meant) and words[last] == words[last + 1]:
                wrong.add(words[last])
            continue
        last = i
        if j is None or meant[i] != heard[j]:
            wrong.add(words[i])
    return len(wrong)
