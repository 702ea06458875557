"""Virtual cards: applications that take command APDUs and give response APDUs.

================== =============================================================================
Module             Content
================== =============================================================================
``application``    :class:`Application`, the base class of all cards
``echo_card``      a card whose answers a test chooses by INS
``file_system``    a card with files and passwords, after ISO/IEC 7816-4
``card_files``     the files of that card
``sample_files``   the files that a new card has
``selection``      the current DF, EF and record of that card
``passwords``      passwords and retry counters
``ef_commands``    the commands that read and update elementary files
``interindustry``  names of instructions and status bytes
``tlv``            BER-TLV data objects
``contact``        :class:`Contact`, a card behind contacts, character by character
``contact_faults`` what a card does wrong on its contacts
``piv_card``       a PIV card, after SP 800-73-4
``piv_keys``       the keys and certificates of that card
``picc``           a contactless card, as its reader shows it to the host
``mifare_classic`` MIFARE Classic 1K and 4K
``type2_tags``     MIFARE Ultralight and NTAG
``iso14443_card``  an application without contacts, ISO/IEC 14443-4
``line``           characters, elementary time units and waiting times
``pps_card``       protocol and parameters selection
``t0_card``        T=0 by characters
``t0_tpdus``       T=0 by TPDUs: APDUs from TPDUs
``t1_card``        T=1
``t1_blocks``      the coding of T=1 blocks
================== =============================================================================
"""

from ccid.virtual.cards.application import Answer, Application
from ccid.virtual.cards.contact import Contact, ContactOptions
from ccid.virtual.cards.echo_card import EchoCard
from ccid.virtual.cards.file_system import FileSystemCard

__all__ = ["Answer", "Application", "Contact", "ContactOptions", "EchoCard", "FileSystemCard"]
