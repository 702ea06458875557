/* Synchronous transfers, made of asynchronous ones as libusb does it. */
#include "standin.h"

static void LIBUSB_CALL done(struct libusb_transfer *t)
{
    *(int *)t->user_data = 1;
}

static int finish(struct libusb_transfer *t, int *completed)
{
    static const int codes[] = {0,
                                LIBUSB_ERROR_IO,
                                LIBUSB_ERROR_TIMEOUT,
                                LIBUSB_ERROR_IO,
                                LIBUSB_ERROR_PIPE,
                                LIBUSB_ERROR_NO_DEVICE,
                                LIBUSB_ERROR_OVERFLOW};
    int code = libusb_submit_transfer(t);

    if (code < 0)
        return code;
    while (!*completed) {
        code = libusb_handle_events_completed(t->dev_handle->device->context, completed);
        if (code < 0 && code != LIBUSB_ERROR_INTERRUPTED)
            libusb_cancel_transfer(t);
    }
    return codes[t->status];
}

static int bulk(libusb_device_handle *h, unsigned char endpoint, unsigned char *data, int length,
                int *moved, unsigned timeout, unsigned char type)
{
    struct libusb_transfer *t;
    int completed = 0, code;

    if (pthread_getspecific(h->device->context->handling))
        return LIBUSB_ERROR_BUSY;
    t = libusb_alloc_transfer(0);
    libusb_fill_bulk_transfer(t, h, endpoint, data, length, done, &completed, timeout);
    t->type = type;
    code = finish(t, &completed);
    if (moved)
        *moved = t->actual_length;
    libusb_free_transfer(t);
    return code;
}

EXPORT int libusb_bulk_transfer(libusb_device_handle *h, unsigned char endpoint,
                                unsigned char *data, int length, int *moved, unsigned timeout)
{
    return bulk(h, endpoint, data, length, moved, timeout, LIBUSB_TRANSFER_TYPE_BULK);
}

EXPORT int libusb_interrupt_transfer(libusb_device_handle *h, unsigned char endpoint,
                                     unsigned char *data, int length, int *moved, unsigned timeout)
{
    return bulk(h, endpoint, data, length, moved, timeout, LIBUSB_TRANSFER_TYPE_INTERRUPT);
}

EXPORT int libusb_control_transfer(libusb_device_handle *h, uint8_t type, uint8_t request,
                                   uint16_t value, uint16_t index, unsigned char *data,
                                   uint16_t length, unsigned timeout)
{
    struct libusb_transfer *t;
    unsigned char *buffer;
    int completed = 0, code;

    if (pthread_getspecific(h->device->context->handling))
        return LIBUSB_ERROR_BUSY;
    t = libusb_alloc_transfer(0);
    buffer = malloc(8u + length);
    libusb_fill_control_setup(buffer, type, request, value, index, length);
    if (!(type & 0x80) && length)
        memcpy(buffer + 8, data, length);
    libusb_fill_control_transfer(t, h, buffer, done, &completed, timeout);
    t->flags = LIBUSB_TRANSFER_FREE_BUFFER;
    code = finish(t, &completed);
    if (!code) {
        code = t->actual_length;
        if (type & 0x80)
            memcpy(data, buffer + 8, (size_t)code);
    }
    libusb_free_transfer(t);
    return code;
}

EXPORT int libusb_get_string_descriptor_ascii(libusb_device_handle *h, uint8_t index,
                                              unsigned char *to, int room)
{
    unsigned char raw[255];
    int got = libusb_control_transfer(h, 0x80, 6, 0x0300, 0, raw, sizeof raw, 1000), n = 0;

    if (got < 4)
        return LIBUSB_ERROR_IO;
    got = libusb_control_transfer(h, 0x80, 6, (uint16_t)(0x0300 | index), 0x0409, raw, sizeof raw,
                                  1000);
    for (int i = 2; i + 1 < got && n + 1 < room; i += 2)
        to[n++] = raw[i];
    to[n] = 0;
    return n;
}
