"""The texts that the display of a PIN pad shows, in eight languages. Pure.

Each language has ten texts of at most 16 ASCII characters, in this order: enter the PIN, new PIN,
confirm the new PIN, PIN right, PIN wrong, time over, tries left (``*`` stands for their number),
insert the card, card error, PIN blocked.
"""

from __future__ import annotations

WIDTH = 16
"""Characters of one line of the display."""

TEXTS = {
    "en": (
        "Enter PIN:", "New PIN:", "Confirm PIN:", "PIN correct", "Wrong PIN", "Time is over",
        "* tries left", "Insert card", "Card error", "PIN is blocked",
    ),
    "de": (
        "PIN eingeben:", "Neue PIN:", "PIN wiederholen:", "PIN richtig", "PIN falsch",
        "Zeit abgelaufen", "* Versuche noch", "Karte einlegen", "Kartenfehler", "PIN gesperrt",
    ),
    "es": (
        "Introduzca PIN:", "Nuevo PIN:", "Repita el PIN:", "PIN correcto", "PIN erroneo",
        "Tiempo agotado", "* intentos mas", "Inserte tarjeta", "Error de tarjeta",
        "PIN bloqueado",
    ),
    "fr": (
        "Tapez le PIN :", "Nouveau PIN :", "Repetez le PIN :", "PIN correct", "PIN errone",
        "Temps ecoule", "* essais encore", "Inserez la carte", "Erreur de carte", "PIN bloque",
    ),
    "it": (
        "Inserire PIN:", "Nuovo PIN:", "Ripetere PIN:", "PIN corretto", "PIN errato",
        "Tempo scaduto", "* tentativi", "Inserire carta", "Errore carta", "PIN bloccato",
    ),
    "nl": (
        "Voer PIN in:", "Nieuwe PIN:", "Herhaal PIN:", "PIN juist", "PIN onjuist",
        "Tijd verstreken", "* pogingen over", "Plaats de kaart", "Kaartfout", "PIN geblokkeerd",
    ),
    "pt": (
        "Digite o PIN:", "Novo PIN:", "Repita o PIN:", "PIN correto", "PIN errado",
        "Tempo esgotado", "* tentativas", "Insira o cartao", "Erro do cartao", "PIN bloqueado",
    ),
    "tr": (
        "PIN giriniz:", "Yeni PIN:", "PIN tekrari:", "PIN dogru", "PIN yanlis", "Sure doldu",
        "* deneme kaldi", "Kart takiniz", "Kart hatasi", "PIN bloke",
    ),
}  # fmt: skip


def language(locale: str) -> str:
    """The language for a POSIX locale such as ``de_AT.UTF-8``; ``en`` for a language that
    :data:`TEXTS` does not have."""
    return locale[:2] if locale[:2] in TEXTS else "en"


def texts(language: str) -> bytes:
    """The ten texts of a language in one string of 160 bytes, each padded with blanks."""
    return b"".join(text.ljust(WIDTH).encode("ascii") for text in TEXTS[language])
