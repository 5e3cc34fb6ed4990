"""The recipe of a miniature with an open vocabulary: English of any kind, in espeak-ng's voices."""
