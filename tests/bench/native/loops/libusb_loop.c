/* A2, the floor: one XfrBlock after the other through libusb, from C, with buffers made once.
 *
 *   libusb_loop APDU             in the first reader
 *   libusb_loop APDU THREADS     as many readers, a thread each
 */
#include <libusb.h>
#include <pthread.h>
#include "loop.h"

enum { MOST_READERS = 16, TIMEOUT_MS = 5000 };

struct reader {
    libusb_device_handle *handle;
    unsigned char in, out, sequence, message[10 + APDU_ROOM], reply[1 << 17];
    int size;
};
static struct reader readers[MOST_READERS];
static unsigned char apdu[APDU_ROOM];
static int apdu_size, count;

/* Send a command whose data are in the message already; returns the size of the reply's data. */
static int transact(struct reader *r, int type, int length)
{
    int moved, status;
    unsigned char *m = r->message;

    m[0] = (unsigned char)type;
    m[1] = (unsigned char)length;
    m[2] = (unsigned char)(length >> 8);
    m[3] = (unsigned char)(length >> 16);
    m[6] = ++r->sequence;
    status = libusb_bulk_transfer(r->handle, r->out, m, 10 + length, &moved, TIMEOUT_MS);
    do {
        if (status == 0)
            status = libusb_bulk_transfer(r->handle, r->in, r->reply, sizeof r->reply, &moved,
                                          TIMEOUT_MS);
        if (status != 0) {
            fprintf(stderr, "libusb: %s\n", libusb_error_name(status));
            exit(1);
        }
    } while (moved < 10 || r->reply[6] != r->sequence);
    return moved - 10;
}

static void open_all(int wanted)
{
    libusb_device **list;
    struct libusb_config_descriptor *c;
    ssize_t n = libusb_get_device_list(NULL, &list);

    if (n < wanted) {
        fprintf(stderr, "there are %d readers, not %d\n", (int)n, wanted);
        exit(1);
    }
    for (int i = 0; i < wanted; i++) {
        struct reader *r = &readers[i];

        if (libusb_open(list[i], &r->handle) || libusb_get_active_config_descriptor(list[i], &c))
            exit(1);
        const struct libusb_interface_descriptor *d = c->interface[0].altsetting;
        for (int k = 0; k < d->bNumEndpoints; k++) {
            unsigned char address = d->endpoint[k].bEndpointAddress;
            if ((d->endpoint[k].bmAttributes & 3) == LIBUSB_TRANSFER_TYPE_BULK)
                *(address & 0x80 ? &r->in : &r->out) = address;
        }
        libusb_claim_interface(r->handle, 0);
        transact(r, 0x65, 0); /* GetSlotStatus */
        transact(r, 0x62, 0); /* IccPowerOn */
        memcpy(r->message + 10, apdu, (size_t)apdu_size);
    }
}

static int once(void)
{
    return transact(&readers[0], 0x6F, apdu_size);
}

static void *run(void *reader)
{
    struct reader *r = reader;

    for (int i = 0; i < count; i++)
        r->size = transact(r, 0x6F, apdu_size);
    return NULL;
}

static void serve_threads(int threads)
{
    pthread_t t[MOST_READERS];

    say_ready();
    while ((count = next_count()) > 0) {
        double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), began = seconds(CLOCK_MONOTONIC);

        for (int i = 0; i < threads; i++)
            pthread_create(&t[i], NULL, run, &readers[i]);
        for (int i = 0; i < threads; i++)
            pthread_join(t[i], NULL);
        double wall = seconds(CLOCK_MONOTONIC) - began;
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        for (int i = 1; i < threads; i++)
            if (readers[i].size != readers[0].size ||
                memcmp(readers[i].reply + 10, readers[0].reply + 10, (size_t)readers[0].size)) {
                fprintf(stderr, "readers 0 and %d give different responses\n", i);
                exit(1);
            }
        say_result(wall, cpu, 0, 0, readers[0].reply + 10, readers[0].size);
    }
}

int main(int argc, char **argv)
{
    int threads = argc > 2 ? atoi(argv[2]) : 1;

    apdu_size = read_apdu(argv[1], apdu);
    libusb_init(NULL);
    open_all(threads);
    if (argc > 2)
        serve_threads(threads);
    else
        serve(once, readers[0].reply + 10);
    return 0;
}
