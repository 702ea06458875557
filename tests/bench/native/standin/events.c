/* Who handles events, and who waits: libusb's event lock, its waiters, and poll(). */
#include "standin.h"

EXPORT void libusb_lock_events(libusb_context *context)
{
    struct libusb_context *c = context_of(context);
    pthread_mutex_lock(&c->events_lock);
    c->active = 1;
}

EXPORT int libusb_try_lock_events(libusb_context *context)
{
    struct libusb_context *c = context_of(context);
    int closing;

    pthread_mutex_lock(&c->data_lock);
    closing = c->closing;
    pthread_mutex_unlock(&c->data_lock);
    if (closing || pthread_mutex_trylock(&c->events_lock))
        return 1;
    c->active = 1;
    return 0;
}

EXPORT void libusb_lock_event_waiters(libusb_context *context)
{
    pthread_mutex_lock(&context_of(context)->waiters_lock);
}

EXPORT void libusb_unlock_event_waiters(libusb_context *context)
{
    pthread_mutex_unlock(&context_of(context)->waiters_lock);
}

EXPORT void libusb_unlock_events(libusb_context *context)
{
    struct libusb_context *c = context_of(context);

    c->active = 0;
    pthread_mutex_unlock(&c->events_lock);
    pthread_mutex_lock(&c->waiters_lock);
    pthread_cond_broadcast(&c->waiters);
    pthread_mutex_unlock(&c->waiters_lock);
}

EXPORT int libusb_event_handler_active(libusb_context *context)
{
    struct libusb_context *c = context_of(context);
    int closing;

    pthread_mutex_lock(&c->data_lock);
    closing = c->closing;
    pthread_mutex_unlock(&c->data_lock);
    return closing ? 1 : c->active;
}

EXPORT int libusb_event_handling_ok(libusb_context *context)
{
    return !context_of(context)->closing;
}

static void handle_timeouts(struct libusb_context *c)
{
    int64_t now;

    if (list_empty(&c->flying))
        return;
    now = now_ns();
    for (struct node *n = c->flying.next; n != &c->flying; n = n->next) {
        struct transfer *t = OF(struct transfer, node, n);
        if (!t->limit || (!(t->state & TIMEOUT_HANDLED) && t->limit > now))
            return;
        if (t->state & TIMEOUT_HANDLED)
            continue;
        t->state |= TIMEOUT_HANDLED;
        if (!libusb_cancel_transfer(&t->public))
            t->state |= TIMED_OUT;
    }
}

static void renew_sources(struct libusb_context *c)
{
    int count = 2;
    struct node *n;

    pthread_mutex_lock(&c->handles_lock);
    for (n = c->handles.next; n != &c->handles; n = n->next)
        count++;
    free(c->fds);
    c->fds = calloc((size_t)count, sizeof *c->fds);
    c->fds[0].fd = c->event;
    c->fds[1].fd = c->timer;
    count = 2;
    for (n = c->handles.next; n != &c->handles; n = n->next)
        c->fds[count++].fd = OF(struct libusb_device_handle, node, n)->fd;
    for (int i = 0; i < count; i++)
        c->fds[i].events = POLLIN;
    c->count = count;
    pthread_mutex_unlock(&c->handles_lock);
}

static void reap_all(struct libusb_context *c, int ready)
{
    pthread_mutex_lock(&c->handles_lock);
    for (int i = 2; i < c->count && ready > 0; i++) {
        struct libusb_device_handle *h = NULL;
        struct node *n;

        if (!c->fds[i].revents)
            continue;
        ready--;
        for (n = c->handles.next; n != &c->handles; n = n->next) {
            h = OF(struct libusb_device_handle, node, n);
            if (h->fd == c->fds[i].fd)
                break;
        }
        if (n == &c->handles)
            continue;
        for (int k = 0; k <= 25; k++) {
            struct urb *u = kernel_reap(h);
            if (!u)
                break;
            complete_transfer(c, u);
        }
    }
    pthread_mutex_unlock(&c->handles_lock);
}

static int handle_events(struct libusb_context *c, const struct timeval *tv)
{
    int ready, wait = (int)(tv->tv_sec * 1000 + (tv->tv_usec + 999) / 1000), timed;

    if (pthread_getspecific(c->handling))
        return LIBUSB_ERROR_BUSY;
    pthread_mutex_lock(&c->data_lock);
    if (c->flags & EVENT_SOURCES) {
        renew_sources(c);
        c->flags &= ~(unsigned)EVENT_SOURCES;
        if (!c->flags)
            clear_event(c);
    }
    pthread_mutex_unlock(&c->data_lock);
    pthread_setspecific(c->handling, c);
    COUNT(polls);
    ready = poll(c->fds, (nfds_t)c->count, wait);
    if (ready <= 0) {
        pthread_setspecific(c->handling, NULL);
        return ready < 0 && errno == EINTR ? LIBUSB_ERROR_INTERRUPTED
               : ready < 0                 ? LIBUSB_ERROR_IO
                                           : 0;
    }
    timed = c->fds[1].revents;
    if (c->fds[0].revents) {
        ready--;
        pthread_mutex_lock(&c->data_lock);
        c->flags &= ~(unsigned)EVENT_USER;
        if (!c->flags)
            clear_event(c);
        pthread_mutex_unlock(&c->data_lock);
    }
    if (timed) {
        ready--;
        pthread_mutex_lock(&c->flying_lock);
        handle_timeouts(c);
        arm_next_timeout(c);
        pthread_mutex_unlock(&c->flying_lock);
    }
    if (ready > 0) {
        pthread_mutex_lock(&c->data_lock); /* sources may have gone */
        pthread_mutex_unlock(&c->data_lock);
        reap_all(c, ready);
    }
    pthread_setspecific(c->handling, NULL);
    return 0;
}

EXPORT int libusb_wait_for_event(libusb_context *context, struct timeval *tv)
{
    struct libusb_context *c = context_of(context);
    struct timespec t;
    int64_t until;

    COUNT(waits);
    if (!tv) {
        pthread_cond_wait(&c->waiters, &c->waiters_lock);
        return 0;
    }
    until = now_ns() + tv->tv_sec * 1000000000LL + tv->tv_usec * 1000LL;
    t.tv_sec = until / 1000000000;
    t.tv_nsec = until % 1000000000;
    return pthread_cond_timedwait(&c->waiters, &c->waiters_lock, &t) == ETIMEDOUT;
}

EXPORT int libusb_handle_events_timeout_completed(libusb_context *context, struct timeval *tv,
                                                  int *completed)
{
    struct libusb_context *c = context_of(context);
    int code = 0;

    for (;;) {
        if (!libusb_try_lock_events(c)) {
            if (!completed || !*completed)
                code = handle_events(c, tv);
            libusb_unlock_events(c);
            return code;
        }
        libusb_lock_event_waiters(c);
        if (completed && *completed)
            break;
        if (libusb_event_handler_active(c)) {
            code = libusb_wait_for_event(c, tv);
            break;
        }
        libusb_unlock_event_waiters(c);
    }
    libusb_unlock_event_waiters(c);
    if (code == 1) {
        pthread_mutex_lock(&c->flying_lock);
        handle_timeouts(c);
        pthread_mutex_unlock(&c->flying_lock);
    }
    return 0;
}

EXPORT int libusb_handle_events_completed(libusb_context *c, int *completed)
{
    struct timeval tv = {60, 0};
    return libusb_handle_events_timeout_completed(c, &tv, completed);
}

EXPORT int libusb_handle_events_timeout(libusb_context *c, struct timeval *tv)
{
    return libusb_handle_events_timeout_completed(c, tv, NULL);
}

EXPORT int libusb_handle_events(libusb_context *c)
{
    return libusb_handle_events_completed(c, NULL);
}

EXPORT int libusb_handle_events_locked(libusb_context *c, struct timeval *tv)
{
    return handle_events(context_of(c), tv);
}

EXPORT int libusb_pollfds_handle_timeouts(libusb_context *c)
{
    return (void)c, 1;
}

EXPORT int libusb_get_next_timeout(libusb_context *c, struct timeval *tv)
{
    return (void)c, (void)tv, 0;
}

EXPORT void libusb_interrupt_event_handler(libusb_context *context)
{
    struct libusb_context *c = context_of(context);

    pthread_mutex_lock(&c->data_lock);
    signal_event(c, EVENT_USER);
    pthread_mutex_unlock(&c->data_lock);
}
