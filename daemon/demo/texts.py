"""Texts of the demo's customers: written for this project, deterministic for a seed.

Ten queues of a bank's support desk. Two of them (`NEW_QUEUES`) open in the middle of the demo, so
that there is something new to learn. A message is an opener, a phrasing with details filled in and
a closer, with the odd typing error; the customer alone knows the queue it belongs to.
"""

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

SYSTEM_PROMPT = "You sort messages of the card support desk. Answer with the queue name only."

FIRST_QUEUES = ("lost_card", "delivery", "pin", "fees", "refund", "transfer", "login", "limits")
NEW_QUEUES = ("travel", "savings")
QUEUES = FIRST_QUEUES + NEW_QUEUES
RESERVED = 2  # phrasings of a queue kept for measuring: neither asked nor trained on

_PHRASES: dict[str, tuple[str, ...]] = {
    "lost_card": (
        "I lost my card {place}",
        "my card was stolen {place}",
        "somebody took my wallet with the {colour} card in it",
        "I cannot find my {colour} card anywhere",
        "please block my card, I left it {place}",
        "my purse is gone and the card with it",
        "I think I dropped my card {place}, freeze it please",
        "how do I report a stolen card",
        "a thief has my {colour} card, stop it at once",
        "my card went missing {when}",
        "I misplaced my bank card {when}, can you block it",
        "the {colour} card is missing from my jacket",
    ),
    "delivery": (
        "my new card has not arrived yet",
        "when will the {colour} card I ordered reach me",
        "I am still waiting for my card since {when}",
        "how long does it take to post a new card to {city}",
        "can you track the card you mailed to {city}",
        "the post brought nothing, where is the card you sent",
        "you said the card would come {when} and the letterbox is empty",
        "is my replacement card on its way to {city}",
        "could the card be shipped to my address in {city}",
        "I moved to {city}, was my card mailed to the old address",
        "what is the delivery time for a {colour} card",
        "the envelope with my card never came",
    ),
    "pin": (
        "I forgot my pin",
        "how can I change the pin of my {colour} card",
        "the machine says wrong pin three times",
        "my pin is blocked after trying it {place}",
        "where do I see my four digit code",
        "I need a new secret code for the card",
        "the pin letter is unreadable",
        "can I pick my own pin for the {colour} card",
        "the cash machine {place} does not take my code",
        "unlock my pin please",
        "I typed the wrong code too often {when}",
        "please remind me of my card code",
    ),
    "fees": (
        "why was I charged a fee of {amount}",
        "what does the {colour} card cost per year",
        "there is a charge of {amount} I do not understand",
        "you took {amount} for using a cash machine {place}",
        "is there a monthly price for the account",
        "how much do you charge for paying in dollars",
        "I see an extra cost of {amount} on my statement",
        "which fees apply for withdrawing money in {city}",
        "the yearly price went up to {amount}, why",
        "do I pay commission when I shop in {city}",
        "explain the service charge from {when}",
        "your price list does not mention {amount}",
    ),
    "refund": (
        "I want my money back for an order from {shop}",
        "{shop} promised a refund of {amount} and nothing came",
        "the refund from {shop} is not on my account",
        "I returned the shoes to {shop}, when do I get {amount} back",
        "please reverse the payment to {shop}",
        "I was billed twice by {shop}, return one of them",
        "the seller cancelled, where are my {amount}",
        "how do I dispute a purchase at {shop}",
        "get me back the {amount} I paid {shop}",
        "chargeback for a parcel from {shop} that never came",
        "when does a returned payment of {amount} show up",
        "{shop} took the money twice {when}",
    ),
    "transfer": (
        "how do I send {amount} to my sister in {city}",
        "my transfer of {amount} has not arrived",
        "the wire to {city} is still pending since {when}",
        "can I send money to an account abroad",
        "I sent {amount} to the wrong account number",
        "how long does a bank transfer to {city} take",
        "set up a standing order of {amount} for the rent",
        "my payment to the landlord bounced {when}",
        "which details do I need to wire {amount}",
        "the salary of {amount} my boss sent has not come in",
        "move {amount} from my account to my brother",
        "the iban of my friend is rejected when I send money",
    ),
    "login": (
        "I cannot log in to the app",
        "the app says my password is wrong",
        "my account is locked after I signed in from {city}",
        "the code by text message never reaches my phone",
        "I have a new phone and the app wants to verify me",
        "reset my password please",
        "face id stopped working in the app {when}",
        "the website throws me out when I sign in",
        "I forgot my user name for online banking",
        "the app crashes at the sign in screen since {when}",
        "how do I register my new phone number for the app",
        "two factor login fails {place}",
    ),
    "limits": (
        "can I raise my daily limit to {amount}",
        "my payment of {amount} is over the limit",
        "how much cash can I take out per day",
        "what is the most I may spend with the {colour} card in a week",
        "please increase the spending cap of my card",
        "the terminal {place} said limit exceeded",
        "lower the maximum for online shopping to {amount}",
        "I need a higher limit for a trip to {city}",
        "is there a maximum amount for contactless",
        "why can I not withdraw more than {amount}",
        "set the weekly cap to {amount}",
        "I hit my ceiling {when}, lift it please",
    ),
    "travel": (
        "does my card include travel insurance for {city}",
        "my suitcase was lost on the flight to {city}, am I covered",
        "how do I claim the cancelled trip to {city}",
        "which hospital costs abroad does the card insurance pay",
        "I need proof of cover for a visa to {city}",
        "the plane to {city} was late, is that insured",
        "add my wife to the holiday cover",
        "I got ill in {city}, whom do I call for the insurance",
        "is a rental car in {city} covered by the {colour} card",
        "send me the certificate of the travel cover",
        "what does the holiday insurance cover",
        "open a claim for my delayed luggage",
    ),
    "savings": (
        "how do I open a savings pot",
        "what interest do I earn on {amount} in savings",
        "put {amount} aside into my pot every month",
        "can I take {amount} out of my savings pot",
        "round up my purchases into the pot",
        "the interest for my savings is missing since {when}",
        "I want a second pot for the holiday in {city}",
        "what rate does the savings account pay",
        "close my pot and pay me out",
        "share a savings pot with my partner",
        "my goal of {amount} does not show in the pot",
        "is the money in my savings protected",
    ),
}  # fmt: skip
_SLOTS: dict[str, tuple[str, ...]] = {
    "place": ("on the bus", "at the station", "in the supermarket", "at the airport", "in a taxi",
              "at the gym", "in a cafe", "on the train", "at work", "in the park"),
    "colour": ("gold", "blue", "black", "green", "debit", "credit", "platinum", "red"),
    "when": ("yesterday", "this morning", "last week", "on monday", "two days ago", "on friday",
             "last night", "a month ago", "on sunday"),
    "city": ("madrid", "lyon", "porto", "berlin", "dublin", "oslo", "prague", "milan", "vienna",
             "geneva", "lisbon", "warsaw"),
    "amount": ("12 euros", "20 pounds", "35 euros", "50 euros", "75 pounds", "120 euros",
               "300 euros", "450 pounds", "800 euros", "1000 euros", "9 euros", "60 pounds"),
    "shop": ("the shoe shop", "a hotel", "the airline", "an online store", "the book shop",
             "a toy shop", "the furniture house", "a ticket site", "the garage"),
}  # fmt: skip
_OPENERS = ("", "", "", "hi, ", "hello, ", "good morning, ", "hey there, ", "excuse me, ", "help! ",
            "dear team, ", "quick question: ", "sorry to bother you, ")  # fmt: skip
_CLOSERS = ("", "", "", "", " please help", " thanks", ", what now?", " thank you",
            ", it is urgent", ", can you check?", " asap", "!")  # fmt: skip
_FOLLOW_UPS = ("and another thing: ", "also, ", "one more question: ", "besides, ", "next: ",
               "different topic: ")  # fmt: skip
_SPACE = re.compile(r"\s+")


class Message(NamedTuple):
    """A customer's message and the queue it really belongs to."""

    text: str
    queue: str


def message(
    rng: random.Random, queue: str, *, follow_up: bool = False, reserved: bool = False
) -> Message:
    """One message for a queue: paraphrase, details and typing errors drawn from `rng`.

    The last `RESERVED` phrasings of a queue are said only where `reserved` asks for them.
    """
    phrases = _PHRASES[queue]
    phrase = rng.choice(phrases[-RESERVED:] if reserved else phrases[:-RESERVED])
    filled = phrase.format(**{name: rng.choice(words) for name, words in _SLOTS.items()})
    opener = rng.choice(_FOLLOW_UPS if follow_up else _OPENERS)
    text = opener + filled + rng.choice(_CLOSERS)
    if rng.random() < 0.3:
        text = _with_typo(rng, text)
    return Message(text[0].upper() + text[1:] if rng.random() < 0.5 else text, queue)


def distinct(
    rng: random.Random, queues: tuple[str, ...], taken: set[str], *, reserved: bool = False
) -> Iterator[Message]:
    """Messages without end whose normalised text is not in `taken`; each one is added to it."""
    while True:
        drawn = message(rng, rng.choice(queues), reserved=reserved)
        if (key := normalised(drawn.text)) not in taken:
            taken.add(key)
            yield drawn


def normalised(text: str) -> str:
    """Lower case, single spaces: what two messages must share to count as the same."""
    return _SPACE.sub(" ", text.casefold()).strip()


def _with_typo(rng: random.Random, text: str) -> str:
    """Two letters swapped, one dropped or one doubled, somewhere inside the text."""
    at = rng.randrange(1, len(text) - 2)
    swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    dropped = text[:at] + text[at + 1 :]
    doubled = text[:at] + text[at] + text[at:]
    return rng.choice((swapped, dropped, doubled))
