/* The reader's firmware: what it answers to a CCID command (CCID 1.1, 6.1 and 6.2). */
#include "standin.h"

struct reader readers[MOST_READERS];

static unsigned xfr_block(struct reader *d, const unsigned char *c, unsigned n, unsigned level,
                          unsigned char *r, unsigned char *chain)
{
    if (config.level == LEVEL_TPDU) {
        if (config.protocol == 1 || c[0] == 0xFF)
            return card_block(d, c, n, r);
        return card_apdu(c, n, r);
    }
    if (level != 0x10) {
        memcpy(d->command + d->command_size, c, n);
        d->command_size += n;
        if (level == 1 || level == 3) {
            *chain = 0x10;
            return 0;
        }
        d->response_size = card_apdu(d->command, d->command_size, d->response);
        d->command_size = d->response_sent = 0;
    }
    unsigned most = config.max_message - 10, left = d->response_size - d->response_sent;
    unsigned part = left > most ? most : left;
    memcpy(r, d->response + d->response_sent, part);
    if (config.level == LEVEL_EXTENDED)
        *chain = d->response_sent ? (left > part ? 3 : 2) : (left > part ? 1 : 0);
    d->response_sent += part;
    return part;
}

/* Answer a command that has `arrived` at that time; the reply is ready when the card is done. */
void reader_command(struct reader *d, const unsigned char *c, unsigned n, int64_t arrived)
{
    struct message *m = malloc(sizeof *m + 10 + ROOM / 2 + 16);
    unsigned char *r = m->bytes, *data = r + 10;
    unsigned size = 0;

    if (!d->command) {
        d->command = malloc(ROOM);
        d->response = malloc(ROOM);
    }
    memset(r, 0, 10);
    r[0] = 0x81;
    r[5] = c[5];
    r[6] = c[6];
    r[7] = d->powered ? 0 : 1;
    m->ready = arrived;
    switch (c[0]) {
    case 0x62: /* IccPowerOn */
        d->powered = 1;
        d->command_size = d->response_size = d->response_sent = d->sequence = 0;
        size = card_atr(data);
        card_parameters(d->parameters);
        r[0] = 0x80;
        r[7] = 0;
        m->ready += config.card_ns;
        break;
    case 0x63: /* IccPowerOff */
        d->powered = 0;
        r[7] = 1;
        break;
    case 0x65: /* GetSlotStatus */
    case 0x6E: /* IccClock */
    case 0x72: /* Abort */
        break;
    case 0x61: /* SetParameters */
        memcpy(d->parameters, c + 10, n - 10 > 7 ? 7 : n - 10);
        r[9] = c[7];
        /* fall through */
    case 0x6C: /* GetParameters */
    case 0x6D: /* ResetParameters */
        r[0] = 0x82;
        if (c[0] != 0x61)
            r[9] = (unsigned char)config.protocol;
        size = config.protocol ? 7 : 5;
        memcpy(data, d->parameters, size);
        break;
    case 0x6F: /* XfrBlock */
        r[0] = 0x80;
        size = xfr_block(d, c + 10, n - 10, c[8] | c[9] << 8, data, &r[9]);
        m->ready += config.card_ns;
        break;
    case 0x73: /* SetDataRateAndClockFrequency */
        r[0] = 0x84;
        size = 8;
        memcpy(data, c + 10, 8);
        break;
    case 0x6B: /* Escape */
        r[0] = 0x83;
        /* fall through */
    default:
        r[7] |= 0x40;
        r[8] = 0; /* command not supported */
    }
    put32(r + 1, size);
    m->size = 10 + size;
    m->sent = 0;
    m->next = NULL;
    if (d->last)
        d->last->next = m;
    else
        d->first = m;
    d->last = m;
}
