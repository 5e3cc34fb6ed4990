"""The phones of American English as espeak-ng names them, variants of one sound together."""

PAUSE = "_"
# Variants of one sound, and lengths that no ear for single phones tells.
SAME = {"ɐ": "ə", "ᵻ": "ɪ", "ɚ": "ɝ", "ɜː": "ɝ", "oː": "ɔː", "ɔ": "ɔː", "oːɹ": "ɔːɹ", "ɾ": "t", "i": "iː", "ɡ": "g"}
SAME |= {"ʔ": "t", "n̩": "n", "ɑ̃": "ɑː"}
# The most frequent first.
INVENTORY = """
    ə ɪ t n s ɹ d z l iː k ɛ m ɝ æ v ð ʌ p aɪ b eɪ w ɑː oʊ f h uː g ŋ əl dʒ ʃ θ ɔː ɑːɹ j tʃ ʊ iə aʊ ɔɪ ɔːɹ ɪɹ ɛɹ
    ʒ aɪə aɪɚ ʊɹ
""".split()  # noqa: SIM905
NUMBER = {phone: index + 1 for index, phone in enumerate(INVENTORY)} | {PAUSE: 0}


def named(phone):
    """The name under which a phone of espeak-ng's events is known here: without stress, pauses as PAUSE."""
    phone = phone.strip("ˈˌ ")
    if not any(letter.isalpha() for letter in phone):
        return PAUSE
    return SAME.get(phone, phone)
