/* The descriptors of a reader: a full-speed or high-speed CCID device with one slot. */
#include "standin.h"

const uint32_t data_rates[MOST_RATES] = {12903,  25806,  51613,  103226, 206452, 412903,
                                         825806, 154839, 258065, 17204,  34409,  68817,
                                         137634, 275269, 550538, 172043};

/* Ids of readers that libccid knows, and for which it has no special treatment. */
uint16_t vendor_id(void)
{
    return config.level == LEVEL_TPDU ? 0x08E6 : config.level == LEVEL_SHORT ? 0x076B : 0x04E6;
}

uint16_t product_id(void)
{
    return config.level == LEVEL_TPDU ? 0x3437 : config.level == LEVEL_SHORT ? 0x6622 : 0x5810;
}

void device_descriptor(struct libusb_device_descriptor *d)
{
    memset(d, 0, sizeof *d);
    d->bLength = 18;
    d->bDescriptorType = LIBUSB_DT_DEVICE;
    d->bcdUSB = 0x0200;
    d->bMaxPacketSize0 = config.high ? 64 : 16;
    d->idVendor = vendor_id();
    d->idProduct = product_id();
    d->bcdDevice = 0x0201;
    d->iManufacturer = 1;
    d->iProduct = 2;
    d->iSerialNumber = 3;
    d->bNumConfigurations = 1;
}

static void class_descriptor(unsigned char *c)
{
    uint32_t features = config.level == LEVEL_TPDU    ? 0x00010230
                        : config.level == LEVEL_SHORT ? 0x000204BA
                                                      : 0x000404BA;

    memset(c, 0, 54);
    c[0] = 54;
    c[1] = 0x21;
    c[2] = 0x10, c[3] = 0x01;
    c[5] = 0x07; /* 5 V, 3 V, 1.8 V */
    put32(c + 6, 3);
    put32(c + 10, 4800);
    put32(c + 14, 4800);
    put32(c + 19, 12903);
    put32(c + 23, 825806);
    c[27] = (unsigned char)MOST_RATES;
    put32(c + 28, 254);
    put32(c + 40, features);
    put32(c + 44, config.max_message);
    c[48] = c[49] = 0xFF;
    c[53] = 1;
}

int configuration_descriptor(unsigned char *b)
{
    unsigned packet = config.high ? 512 : 64;
    unsigned char *at = b + 9;
    const unsigned char ends[] = {BULK_OUT, BULK_IN, INTERRUPT_IN};
    const unsigned char interface[] = {9,    4, 0, 0, (unsigned char)(config.events ? 3 : 2),
                                       0x0B, 0, 0, 0};

    memcpy(at, interface, 9);
    at += 9;
    class_descriptor(at);
    at += 54;
    for (int i = 0; i < (config.events ? 3 : 2); i++, at += 7) {
        unsigned size = i < 2 ? packet : 8;
        const unsigned char e[] = {7,
                                   5,
                                   ends[i],
                                   (unsigned char)(i < 2 ? 2 : 3),
                                   (unsigned char)size,
                                   (unsigned char)(size >> 8),
                                   (unsigned char)(i < 2         ? 0
                                                   : config.high ? 8
                                                                 : 16)};
        memcpy(at, e, 7);
    }
    const unsigned char head[] = {9, 2, (unsigned char)(at - b), 0, 1, 1, 0, 0x80, 50};
    memcpy(b, head, 9);
    return (int)(at - b);
}

static const char *string(int number, int index, char *room)
{
    if (number == 1)
        return "Stand-in";
    if (number == 2)
        return "USB SmartCard Reader";
    sprintf(room, "SI%04d", index);
    return room;
}

/* A string descriptor of the reader with that index; returns its size. */
int string_descriptor(int number, int index, unsigned char *to)
{
    char room[32];
    const char *text = string(number, index, room);
    int n = 2;

    if (number == 0) {
        memcpy(to, "\x04\x03\x09\x04", 4);
        return 4;
    }
    for (; *text; text++) {
        to[n++] = (unsigned char)*text;
        to[n++] = 0;
    }
    to[0] = (unsigned char)n;
    to[1] = 3;
    return n;
}
