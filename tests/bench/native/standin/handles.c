/* Open devices, and the calls that do nothing here but cost a system call each. */
#include "standin.h"

EXPORT int libusb_open(libusb_device *d, libusb_device_handle **to)
{
    struct libusb_context *c = d->context;
    struct libusb_device_handle *h = calloc(1, sizeof *h);

    h->device = libusb_ref_device(d);
    h->reader = &readers[d->index];
    pthread_mutex_init(&h->lock, NULL);
    list_init(&h->due);
    list_init(&h->waiting);
    if (all_at_once())
        h->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    else
        h->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    pthread_mutex_lock(&c->handles_lock);
    list_before(&h->node, &c->handles);
    pthread_mutex_unlock(&c->handles_lock);
    pthread_mutex_lock(&c->data_lock);
    signal_event(c, EVENT_SOURCES);
    pthread_mutex_unlock(&c->data_lock);
    *to = h;
    return 0;
}

EXPORT libusb_device_handle *libusb_open_device_with_vid_pid(libusb_context *context, uint16_t v,
                                                             uint16_t p)
{
    libusb_device_handle *h = NULL;
    struct libusb_context *c = context_of(context);

    if (v == vendor_id() && p == product_id() && config.readers)
        libusb_open(c->devices[0], &h);
    return h;
}

EXPORT void libusb_close(libusb_device_handle *h)
{
    struct libusb_context *c;

    if (!h)
        return;
    c = h->device->context;
    pthread_mutex_lock(&c->data_lock);
    c->closing++;
    signal_event(c, EVENT_CLOSE);
    pthread_mutex_unlock(&c->data_lock);
    libusb_lock_events(c);
    pthread_mutex_lock(&c->handles_lock);
    list_del(&h->node);
    pthread_mutex_unlock(&c->handles_lock);
    close(h->fd);
    h->reader->notified = 0;
    pthread_mutex_lock(&c->data_lock);
    c->flags |= EVENT_SOURCES;
    if (!--c->closing)
        c->flags &= ~(unsigned)EVENT_CLOSE;
    pthread_mutex_unlock(&c->data_lock);
    libusb_unlock_events(c);
    libusb_unref_device(h->device);
    free(h);
}

static int quiet_call(libusb_device_handle *h)
{
    ioctl(h->fd, 0, 0);
    return 0;
}

EXPORT int libusb_get_configuration(libusb_device_handle *h, int *to)
{
    *to = 1;
    return quiet_call(h);
}

EXPORT int libusb_set_configuration(libusb_device_handle *h, int value)
{
    return (void)value, quiet_call(h);
}

EXPORT int libusb_claim_interface(libusb_device_handle *h, int i)
{
    return i ? LIBUSB_ERROR_NOT_FOUND : quiet_call(h);
}

EXPORT int libusb_release_interface(libusb_device_handle *h, int i)
{
    return (void)i, quiet_call(h);
}

EXPORT int libusb_set_interface_alt_setting(libusb_device_handle *h, int i, int a)
{
    return (void)i, (void)a, quiet_call(h);
}

EXPORT int libusb_clear_halt(libusb_device_handle *h, unsigned char e)
{
    return (void)e, quiet_call(h);
}

EXPORT int libusb_reset_device(libusb_device_handle *h)
{
    return quiet_call(h);
}

EXPORT int libusb_kernel_driver_active(libusb_device_handle *h, int i)
{
    return (void)i, quiet_call(h);
}

EXPORT int libusb_detach_kernel_driver(libusb_device_handle *h, int i)
{
    return (void)h, (void)i, LIBUSB_ERROR_NOT_FOUND;
}

EXPORT int libusb_attach_kernel_driver(libusb_device_handle *h, int i)
{
    return (void)h, (void)i, LIBUSB_ERROR_NOT_FOUND;
}

EXPORT int libusb_set_auto_detach_kernel_driver(libusb_device_handle *h, int on)
{
    return (void)h, (void)on, 0;
}
