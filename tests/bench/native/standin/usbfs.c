/* The kernel's side: what usbfs does with a submitted URB, and when the URB is due.
 *
 * A handle's descriptor becomes readable when its first URB is due: a timer descriptor, or an event
 * descriptor where all delays are 0.
 */
#include "standin.h"

/* Nothing takes time: what is submitted is due at once. */
int all_at_once(void)
{
    return !config.out_ns && !config.in_ns && !config.card_ns;
}

static int64_t rounded(int64_t due)
{
    if (config.frame_ns)
        due = (due + config.frame_ns - 1) / config.frame_ns * config.frame_ns;
    return due;
}

/* Make the handle's descriptor readable when its first URB is due. The caller holds the lock. */
static void arm(struct libusb_device_handle *h)
{
    uint64_t one = 1;
    struct itimerspec t;

    if (list_empty(&h->due))
        return;
    struct urb *u = OF(struct urb, node, h->due.next);
    if (all_at_once()) {
        if (write(h->fd, &one, sizeof one) < 0)
            abort();
        return;
    }
    if (u->due == h->armed)
        return;
    h->armed = u->due;
    t = at_ns(u->due > config.early_ns ? u->due - config.early_ns : 1);
    timerfd_settime(h->fd, TFD_TIMER_ABSTIME, &t, NULL);
}

/* Put a URB among those whose time is known. */
static void schedule(struct libusb_device_handle *h, struct urb *u, int64_t due)
{
    struct node *n;

    u->due = due;
    for (n = h->due.prev; n != &h->due && OF(struct urb, node, n)->due > due; n = n->prev)
        ;
    list_before(&u->node, n->next);
    arm(h);
}

/* Give the replies that are ready, or whose time is known, to the bulk-IN URBs that wait. */
static void answer(struct libusb_device_handle *h)
{
    struct reader *r = h->reader;
    struct node *n, *next;
    int64_t now = now_ns();

    for (n = h->waiting.next; n != &h->waiting && r->first; n = next) {
        struct urb *u = OF(struct urb, node, n);
        struct libusb_transfer *t = &u->transfer->public;
        struct message *m = r->first;
        int64_t begins = m->ready > now ? m->ready : now;

        next = n->next;
        if (t->endpoint != BULK_IN)
            continue;
        u->moved = m->size - m->sent;
        if (u->moved > (unsigned)t->length)
            u->moved = (unsigned)t->length;
        memcpy(t->buffer, m->bytes + m->sent, u->moved);
        m->sent += u->moved;
        if (m->sent == m->size) {
            r->first = m->next;
            if (!r->first)
                r->last = NULL;
            u->whole = m;
        }
        list_del(n);
        schedule(h, u, rounded(begins + config.in_ns + (int64_t)(u->moved * config.ns_per_byte)));
    }
}

static void submit_out(struct libusb_device_handle *h, struct urb *u, int64_t now)
{
    struct libusb_transfer *t = &u->transfer->public;
    int64_t due = rounded(now + config.out_ns + (int64_t)(t->length * config.ns_per_byte));

    u->moved = (unsigned)t->length;
    if (t->length >= 10 && get32(t->buffer + 1) == (uint32_t)t->length - 10)
        reader_command(h->reader, t->buffer, (unsigned)t->length, due);
    schedule(h, u, due);
    answer(h);
}

static void submit_control(struct libusb_device_handle *h, struct urb *u, int64_t now)
{
    struct libusb_transfer *t = &u->transfer->public;
    unsigned char *setup = t->buffer, *data = setup + 8, made[512];
    int wanted = setup[6] | setup[7] << 8, got = 0;

    if (setup[0] == 0x80 && setup[1] == 6 && setup[3] == 3) {
        got = string_descriptor(setup[2], h->device->index, made);
    } else if (setup[0] == 0x80 && setup[1] == 6 && setup[3] == 2) {
        got = configuration_descriptor(made);
    } else if (setup[0] == 0xA1 && setup[1] == 3) { /* GET_DATA_RATES */
        for (got = 0; got < 4 * MOST_RATES; got += 4)
            put32(made + got, data_rates[got / 4]);
    } else if (setup[0] == 0xA1 && setup[1] == 2) { /* GET_CLOCK_FREQUENCIES */
        put32(made, 4800);
        got = 4;
    } else if (setup[0] == 0x80 && setup[1] == 8) { /* GET_CONFIGURATION */
        made[0] = 1;
        got = 1;
    } else if (setup[0] & 0x80) {
        u->status = LIBUSB_TRANSFER_STALL;
    }
    if (got > wanted)
        got = wanted;
    if (setup[0] & 0x80)
        memcpy(data, made, (size_t)got);
    u->moved = setup[0] & 0x80 ? (unsigned)got : (unsigned)wanted;
    schedule(h, u, rounded(now + config.out_ns + config.in_ns));
}

static void submit_interrupt(struct libusb_device_handle *h, struct urb *u, int64_t now)
{
    struct libusb_transfer *t = &u->transfer->public;

    if (h->reader->notified || !config.notify || t->length < 2) {
        list_before(&u->node, &h->waiting);
        return;
    }
    h->reader->notified = 1;
    memcpy(t->buffer, "\x50\x03", 2); /* RDR_to_PC_NotifySlotChange: a card came */
    u->moved = 2;
    schedule(h, u, all_at_once() ? now : now + 16000000);
}

static void burn(int64_t ns)
{
    int64_t until = now_ns() + ns;
    while (now_ns() < until)
        ;
}

/* USBDEVFS_SUBMITURB. */
int kernel_submit(struct transfer *t)
{
    struct libusb_device_handle *h = t->public.dev_handle;
    struct urb *u = calloc(1, sizeof *u);
    int64_t now = now_ns();

    if (!u)
        return LIBUSB_ERROR_NO_MEM;
    u->transfer = t;
    t->urb = u;
    COUNT(submits);
    if (config.urb_ns)
        burn(config.urb_ns);
    pthread_mutex_lock(&h->lock);
    switch (t->public.endpoint) {
    case BULK_OUT:
        COUNT(out);
        ADD(bytes_out, (uint64_t)t->public.length);
        submit_out(h, u, now);
        break;
    case BULK_IN:
        COUNT(in);
        list_before(&u->node, &h->waiting);
        answer(h);
        if (u->due == 0) /* nothing to tell the timer: the call costs all the same */
            ioctl(h->fd, 0, 0);
        break;
    case INTERRUPT_IN:
        COUNT(interrupt);
        submit_interrupt(h, u, now);
        break;
    default:
        COUNT(control);
        submit_control(h, u, now);
    }
    pthread_mutex_unlock(&h->lock);
    return 0;
}

/* USBDEVFS_DISCARDURB. */
int kernel_discard(struct transfer *t)
{
    struct libusb_device_handle *h = t->public.dev_handle;
    struct urb *u = t->urb;

    pthread_mutex_lock(&h->lock);
    COUNT(cancels);
    list_del(&u->node);
    if (u->whole) { /* the reader still has that reply */
        struct reader *r = h->reader;
        u->whole->sent -= u->moved;
        u->whole->next = r->first;
        r->first = u->whole;
        if (!r->last)
            r->last = u->whole;
        u->whole = NULL;
    }
    u->status = LIBUSB_TRANSFER_CANCELLED;
    u->moved = 0;
    schedule(h, u, now_ns());
    pthread_mutex_unlock(&h->lock);
    return 0;
}

/* USBDEVFS_REAPURBNDELAY. */
struct urb *kernel_reap(struct libusb_device_handle *h)
{
    struct urb *u = NULL;
    uint64_t value;
    ssize_t got;

    pthread_mutex_lock(&h->lock);
    got = read(h->fd, &value, sizeof value);
    if (!list_empty(&h->due)) {
        u = OF(struct urb, node, h->due.next);
        if (!all_at_once() && u->due - config.early_ns > now_ns())
            u = NULL;
    }
    if (u) {
        list_del(&u->node);
        h->armed = 0;
    } else if (got > 0) {
        h->armed = 0;
    }
    if (!all_at_once() && !h->armed)
        arm(h);
    else if (all_at_once() && got > 0 && !list_empty(&h->due))
        arm(h);
    pthread_mutex_unlock(&h->lock);
    return u;
}
