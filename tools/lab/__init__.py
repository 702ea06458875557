"""A QEMU guest with real USB: Debian's kernel over the host's root, QEMU's CCID readers.

For machines that have no USB. ``tools/prepare-lab`` installs what it needs and builds the kernel;
``guest`` boots it and runs commands in it, also from the shell (``tools/lab/guest.py --help``);
``cardserver`` is the card in its readers; ``pcscd`` runs PC/SC there.
"""
