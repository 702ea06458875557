/* Asynchronous transfers, from their allocation to their callback. */
#include "standin.h"

EXPORT struct libusb_transfer *libusb_alloc_transfer(int packets)
{
    struct transfer *t;

    t = calloc(1, sizeof *t + (size_t)packets * sizeof(struct libusb_iso_packet_descriptor));
    if (!t)
        return NULL;
    list_init(&t->node);
    pthread_mutex_init(&t->lock, NULL);
    return &t->public;
}

EXPORT void libusb_free_transfer(struct libusb_transfer *public)
{
    struct transfer *t;

    if (!public)
        return;
    t = PRIVATE(public);
    if (public->flags & LIBUSB_TRANSFER_FREE_BUFFER)
        free(public->buffer);
    pthread_mutex_destroy(&t->lock);
    if (t->device)
        libusb_unref_device(t->device);
    free(t);
}

static void set_timer(struct libusb_context *c, int64_t when)
{
    struct itimerspec t = at_ns(when);
    timerfd_settime(c->timer, TFD_TIMER_ABSTIME, &t, NULL);
}

static void enter(struct libusb_context *c, struct transfer *t)
{
    struct node *n = &c->flying;

    t->limit = t->public.timeout ? now_ns() + t->public.timeout * 1000000LL : 0;
    if (t->limit)
        for (n = c->flying.next; n != &c->flying; n = n->next) {
            int64_t other = OF(struct transfer, node, n)->limit;
            if (!other || other > t->limit)
                break;
        }
    list_before(&t->node, n);
    if (t->limit && c->flying.next == &t->node)
        set_timer(c, t->limit);
}

void arm_next_timeout(struct libusb_context *c)
{
    for (struct node *n = c->flying.next; n != &c->flying; n = n->next) {
        struct transfer *t = OF(struct transfer, node, n);
        if (!t->limit)
            break;
        if (!(t->state & TIMEOUT_HANDLED)) {
            set_timer(c, t->limit);
            return;
        }
    }
    set_timer(c, 0);
}

static void leave(struct libusb_context *c, struct transfer *t)
{
    int was_first;

    pthread_mutex_lock(&c->flying_lock);
    was_first = t->limit && c->flying.next == &t->node;
    list_del(&t->node);
    if (was_first)
        arm_next_timeout(c);
    pthread_mutex_unlock(&c->flying_lock);
}

EXPORT int libusb_submit_transfer(struct libusb_transfer *public)
{
    struct transfer *t = PRIVATE(public);
    struct libusb_context *c = public->dev_handle->device->context;
    int code;

    if (c->closing < 0) {
        fprintf(stderr, "stand-in: a transfer after libusb_exit\n");
        abort();
    }
    if (t->device)
        libusb_unref_device(t->device);
    t->device = libusb_ref_device(public->dev_handle->device);
    pthread_mutex_lock(&c->flying_lock);
    pthread_mutex_lock(&t->lock);
    if (t->state & IN_FLIGHT) {
        pthread_mutex_unlock(&c->flying_lock);
        pthread_mutex_unlock(&t->lock);
        return LIBUSB_ERROR_BUSY;
    }
    t->state = t->moved = 0;
    enter(c, t);
    pthread_mutex_unlock(&c->flying_lock);
    code = kernel_submit(t);
    if (!code)
        t->state |= IN_FLIGHT;
    pthread_mutex_unlock(&t->lock);
    if (code)
        leave(c, t);
    return code;
}

EXPORT int libusb_cancel_transfer(struct libusb_transfer *public)
{
    struct transfer *t = PRIVATE(public);
    int code = LIBUSB_ERROR_NOT_FOUND;

    pthread_mutex_lock(&t->lock);
    if ((t->state & IN_FLIGHT) && !(t->state & CANCELLING)) {
        code = kernel_discard(t);
        t->state |= CANCELLING;
    }
    pthread_mutex_unlock(&t->lock);
    return code;
}

void complete_transfer(struct libusb_context *c, struct urb *u)
{
    struct transfer *t = u->transfer;
    int status = u->status;
    uint8_t flags;

    pthread_mutex_lock(&t->lock);
    t->moved = u->moved;
    t->urb = NULL;
    pthread_mutex_unlock(&t->lock);
    free(u->whole);
    free(u);
    if (status == LIBUSB_TRANSFER_CANCELLED) {
        pthread_mutex_lock(&c->flying_lock);
        if (t->state & TIMED_OUT) {
            status = LIBUSB_TRANSFER_TIMED_OUT;
            COUNT(timeouts);
        }
        pthread_mutex_unlock(&c->flying_lock);
    }
    leave(c, t);
    pthread_mutex_lock(&t->lock);
    t->state &= ~(unsigned)IN_FLIGHT;
    pthread_mutex_unlock(&t->lock);
    t->public.status = (enum libusb_transfer_status)status;
    t->public.actual_length = (int)t->moved;
    if (t->public.endpoint == BULK_IN)
        ADD(bytes_in, t->moved);
    flags = t->public.flags;
    if (t->public.callback)
        t->public.callback(&t->public);
    if (flags & LIBUSB_TRANSFER_FREE_TRANSFER)
        libusb_free_transfer(&t->public);
}
