/* The card: an ATR, three commands, and T=1 from the card's side. */
#include "standin.h"

static const unsigned char atr_t0[] = {0x3B, 0x78, 0x18, 0x00, 0x00, 0x00, 0x73,
                                       0xC8, 0x40, 0x13, 0x00, 0x90, 0x00};
static const unsigned char atr_t1[] = {0x3B, 0xF8, 0x13, 0x00, 0x00, 0x81, 0x31, 0xFE, 0x45,
                                       0x4A, 0x43, 0x4F, 0x50, 0x76, 0x32, 0x34, 0x31, 0xB7};

/* The ATR; returns its size. */
unsigned card_atr(unsigned char *to)
{
    unsigned size = config.protocol ? sizeof atr_t1 : sizeof atr_t0;

    memcpy(to, config.protocol ? atr_t1 : atr_t0, size);
    return size;
}

/* abProtocolDataStructure after a power-up (CCID 1.1, 6.2.3); returns its size. */
unsigned card_parameters(unsigned char *to)
{
    unsigned size = config.protocol ? 7 : 5;

    memcpy(to, config.protocol ? "\x11\x10\x00\x45\x00\xFE\x00" : "\x11\x00\x00\x0A\x00", size);
    return size;
}

/* INS 10 gives Le bytes, 20 takes data, 30 gives its data back. Returns the response's size. */
unsigned card_apdu(const unsigned char *c, unsigned n, unsigned char *r)
{
    unsigned lc = 0, le = 0, size = 0;
    const unsigned char *data = c + 5;

    COUNT(apdus);
    if (n == 5) {
        le = c[4] ? c[4] : 256;
    } else if (n > 5 && c[4]) {
        lc = c[4];
        if (n > 5 + lc)
            le = c[5 + lc] ? c[5 + lc] : 256;
    } else if (n == 7) {
        le = c[5] << 8 | c[6];
        le = le ? le : 65536;
    } else if (n > 7) {
        lc = c[5] << 8 | c[6];
        data = c + 7;
        if (n >= 7 + lc + 2) {
            le = c[7 + lc] << 8 | c[8 + lc];
            le = le ? le : 65536;
        }
    }
    if (data + lc > c + n)
        lc = 0;
    if (n < 4) {
        r[0] = 0x67, r[1] = 0;
        return 2;
    }
    if (c[1] == 0x10)
        for (size = 0; size < le; size++)
            r[size] = (unsigned char)size;
    if (c[1] == 0x30) {
        size = lc < le ? lc : le;
        memcpy(r, data, size);
    }
    r[size] = 0x90;
    r[size + 1] = 0;
    return size + 2;
}

static unsigned lrc(unsigned char *b, unsigned n)
{
    unsigned char x = 0;
    for (unsigned i = 0; i < n; i++)
        x ^= b[i];
    b[n] = x;
    return n + 1;
}

static unsigned block(unsigned char *r, unsigned pcb, const unsigned char *data, unsigned n)
{
    r[0] = 0;
    r[1] = (unsigned char)pcb;
    r[2] = (unsigned char)n;
    if (n)
        memmove(r + 3, data, n);
    return lrc(r, 3 + n);
}

static unsigned next_part(struct reader *card, unsigned char *r)
{
    unsigned left = card->response_size - card->response_sent, n = left > 254 ? 254 : left;
    unsigned pcb = (card->sequence & 1) << 6 | (left > n ? 0x20 : 0);

    n = block(r, pcb, card->response + card->response_sent, n);
    card->response_sent += n - 4;
    card->sequence++;
    return n;
}

/* A T=1 block, or PPS, and its answer; returns the size of that. */
unsigned card_block(struct reader *card, const unsigned char *c, unsigned n, unsigned char *r)
{
    unsigned pcb = c[1];

    if (c[0] == 0xFF) {
        memcpy(r, c, n);
        return n;
    }
    if ((pcb & 0xC0) == 0xC0) { /* S: a response */
        if ((pcb & 0x1F) == 0)
            card->sequence = card->command_size = 0;
        return block(r, pcb | 0x20, c + 3, c[2]);
    }
    if (pcb & 0x80) /* R: the next part */
        return next_part(card, r);
    memcpy(card->command + card->command_size, c + 3, c[2]);
    card->command_size += c[2];
    if (pcb & 0x20)
        return block(r, 0x80 | (~pcb & 0x40) >> 2, NULL, 0);
    card->response_size = card_apdu(card->command, card->command_size, card->response);
    card->command_size = card->response_sent = 0;
    return next_part(card, r);
}
