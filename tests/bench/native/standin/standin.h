/* What the files of the stand-in share; libusb.c tells what the stand-in is.
 *
 * Names of variables, everywhere: c context, d device, h handle, t transfer, u URB, r reader.
 */
#ifndef STANDIN_H
#define STANDIN_H
#define _GNU_SOURCE
#include <errno.h>
#include <libusb.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { MOST_READERS = 16 };
enum { ROOM = 1 << 17 }; /* bytes of the longest APDU or response, and more */
enum { BULK_OUT = 0x02, BULK_IN = 0x82, INTERRUPT_IN = 0x81 };
enum level { LEVEL_TPDU = 1, LEVEL_SHORT = 2, LEVEL_EXTENDED = 4 };

/* Configuration and counters (configuration.c) */

/* Counted over all processes. counters.py reads the same 64-bit numbers in the same order. */
struct counters {
    _Atomic uint64_t out, in, interrupt, control, submits, timeouts, cancels, polls, waits,
        bytes_out, bytes_in, apdus;
};

struct config {
    enum level level;
    int readers, protocol, high, notify, events;
    int64_t out_ns, in_ns, card_ns, early_ns, frame_ns, urb_ns;
    double ns_per_byte;
    unsigned max_message;
    struct counters *counters;
};
extern struct config config;
void configure_once(void);

#define COUNT(what) ADD(what, 1)
#define ADD(what, n) atomic_fetch_add_explicit(&config.counters->what, n, memory_order_relaxed)

/* Small things */

static inline int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline struct itimerspec at_ns(int64_t when)
{
    struct itimerspec t = {{0, 0}, {when / 1000000000, when % 1000000000}};
    return t;
}

static inline void put32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

static inline uint32_t get32(const unsigned char *at)
{
    return at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Lists: a ring of nodes, of which one is the head */

struct node {
    struct node *next, *prev;
};

static inline void list_init(struct node *l)
{
    l->next = l->prev = l;
}

static inline int list_empty(const struct node *l)
{
    return l->next == l;
}

static inline void list_before(struct node *n, struct node *where)
{
    n->next = where;
    n->prev = where->prev;
    where->prev->next = n;
    where->prev = n;
}

static inline void list_del(struct node *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->next = n->prev = n;
}

/* The structure that has a node as its member. */
#define OF(type, member, node) ((type *)((char *)(node) - offsetof(type, member)))

/* Descriptors (descriptors.c) */

enum { MOST_RATES = 16, CONFIGURATION_ROOM = 256 };
extern const uint32_t data_rates[MOST_RATES];
uint16_t vendor_id(void);
uint16_t product_id(void);
void device_descriptor(struct libusb_device_descriptor *to);
int configuration_descriptor(unsigned char *to);
int string_descriptor(int number, int index, unsigned char *to);

/* A reader and its card (reader.c, card.c) */

/* A reply that was not fetched yet. */
struct message {
    struct message *next;
    int64_t ready;
    unsigned size, sent;
    unsigned char bytes[];
};

/* What the firmware of a reader and its card remember. */
struct reader {
    struct message *first, *last; /* replies that were not fetched */
    int powered, notified;
    unsigned char parameters[7];
    unsigned char *command, *response; /* APDUs in several messages or blocks */
    unsigned command_size, response_size, response_sent, sequence;
};
extern struct reader readers[MOST_READERS];

void reader_command(struct reader *r, const unsigned char *command, unsigned size, int64_t arrived);
unsigned card_atr(unsigned char *to);
unsigned card_parameters(unsigned char *to);
unsigned card_apdu(const unsigned char *command, unsigned size, unsigned char *response);
unsigned card_block(struct reader *r, const unsigned char *block, unsigned size, unsigned char *to);

/* What libusb keeps (devices.c, handles.c, transfers.c, events.c) */

struct libusb_device {
    struct libusb_context *context;
    _Atomic int references;
    int index;
};

struct libusb_device_handle {
    struct node node;
    struct libusb_device *device;
    struct reader *reader;
    pthread_mutex_t lock; /* what the kernel would hold */
    int fd;               /* readable when the first URB is due */
    struct node due;      /* URBs whose time is known, sorted by that time */
    struct node waiting;  /* the others */
    int64_t armed;
};

/* What the kernel knows of a transfer. */
struct urb {
    struct node node;
    struct transfer *transfer;
    struct message *whole; /* the reply whose last byte this URB has, in case it is cancelled */
    int64_t due;
    int status;
    unsigned moved;
};

enum { IN_FLIGHT = 1, CANCELLING = 2, TIMED_OUT = 4, TIMEOUT_HANDLED = 8 };
struct transfer {
    struct node node;
    struct urb *urb;
    int64_t limit; /* 0: none */
    unsigned state, moved;
    pthread_mutex_t lock;
    struct libusb_device *device;
    struct libusb_transfer public;
};
#define PRIVATE(t) OF(struct transfer, public, t)

enum { EVENT_SOURCES = 1, EVENT_USER = 2, EVENT_CLOSE = 4 };
struct libusb_context {
    struct libusb_device *devices[MOST_READERS];
    pthread_mutex_t flying_lock, events_lock, waiters_lock, data_lock, handles_lock;
    pthread_cond_t waiters;
    pthread_key_t handling;
    struct node flying, handles;
    int event, timer, active, closing;
    unsigned flags;
    struct pollfd *fds;
    int count, references;
};
struct libusb_context *context_of(struct libusb_context *given);
void signal_event(struct libusb_context *c, unsigned flag);
void clear_event(struct libusb_context *c);
void arm_next_timeout(struct libusb_context *c);
void complete_transfer(struct libusb_context *c, struct urb *u);

/* The kernel's side (usbfs.c) */

int all_at_once(void);
int kernel_submit(struct transfer *t);
int kernel_discard(struct transfer *t);
struct urb *kernel_reap(struct libusb_device_handle *h);

#endif
