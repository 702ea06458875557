/* Contexts, and the devices in them. */
#include "standin.h"

static struct libusb_context *default_context;
static pthread_mutex_t default_lock = PTHREAD_MUTEX_INITIALIZER;

struct libusb_context *context_of(struct libusb_context *context)
{
    return context ? context : default_context;
}

void signal_event(struct libusb_context *c, unsigned flag)
{
    uint64_t one = 1;
    unsigned before = c->flags;

    c->flags |= flag;
    if (!before && write(c->event, &one, sizeof one) < 0)
        abort();
}

void clear_event(struct libusb_context *c)
{
    uint64_t value;
    if (read(c->event, &value, sizeof value) < 0)
        return;
}

EXPORT int libusb_init(libusb_context **to)
{
    struct libusb_context *c;
    pthread_condattr_t attributes;

    configure_once();
    pthread_mutex_lock(&default_lock);
    if (!to && default_context) {
        default_context->references++;
        pthread_mutex_unlock(&default_lock);
        return 0;
    }
    c = calloc(1, sizeof *c);
    c->references = 1;
    pthread_mutex_init(&c->flying_lock, NULL);
    pthread_mutex_init(&c->events_lock, NULL);
    pthread_mutex_init(&c->waiters_lock, NULL);
    pthread_mutex_init(&c->data_lock, NULL);
    pthread_mutex_init(&c->handles_lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&c->waiters, &attributes);
    pthread_key_create(&c->handling, NULL);
    list_init(&c->flying);
    list_init(&c->handles);
    c->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    c->flags = EVENT_SOURCES;
    for (int i = 0; i < config.readers; i++) {
        c->devices[i] = calloc(1, sizeof *c->devices[i]);
        c->devices[i]->context = c;
        c->devices[i]->references = 1;
        c->devices[i]->index = i;
    }
    if (!default_context)
        default_context = c;
    if (to)
        *to = c;
    pthread_mutex_unlock(&default_lock);
    return 0;
}

EXPORT void libusb_exit(libusb_context *context)
{
    struct libusb_context *c = context_of(context);

    if (!c || --c->references)
        return;
    if (c == default_context)
        default_context = NULL;
    close(c->event);
    close(c->timer);
    free(c->fds);
    c->fds = NULL;
    c->closing = -1000000; /* the memory is kept, so that a use after the end is found out */
}

EXPORT ssize_t libusb_get_device_list(libusb_context *context, libusb_device ***list)
{
    struct libusb_context *c = context_of(context);

    *list = calloc((size_t)config.readers + 1, sizeof **list);
    for (int i = 0; i < config.readers; i++)
        (*list)[i] = libusb_ref_device(c->devices[i]);
    return config.readers;
}

EXPORT void libusb_free_device_list(libusb_device **list, int unref)
{
    if (!list)
        return;
    for (int i = 0; unref && list[i]; i++)
        libusb_unref_device(list[i]);
    free(list);
}

EXPORT libusb_device *libusb_ref_device(libusb_device *d)
{
    atomic_fetch_add(&d->references, 1);
    return d;
}

EXPORT void libusb_unref_device(libusb_device *d)
{
    atomic_fetch_sub(&d->references, 1);
}

EXPORT uint8_t libusb_get_bus_number(libusb_device *d)
{
    return (void)d, 1;
}

EXPORT uint8_t libusb_get_device_address(libusb_device *d)
{
    return (uint8_t)(2 + d->index);
}

EXPORT uint8_t libusb_get_port_number(libusb_device *d)
{
    return (uint8_t)(1 + d->index);
}

EXPORT libusb_device *libusb_get_parent(libusb_device *d)
{
    return (void)d, NULL;
}

EXPORT libusb_device *libusb_get_device(libusb_device_handle *h)
{
    return h->device;
}

EXPORT int libusb_get_device_speed(libusb_device *d)
{
    return (void)d, config.high ? LIBUSB_SPEED_HIGH : LIBUSB_SPEED_FULL;
}

EXPORT int libusb_get_port_numbers(libusb_device *d, uint8_t *to, int room)
{
    if (room < 1)
        return LIBUSB_ERROR_OVERFLOW;
    to[0] = (uint8_t)(1 + d->index);
    return 1;
}

EXPORT int libusb_get_device_descriptor(libusb_device *d, struct libusb_device_descriptor *to)
{
    (void)d;
    device_descriptor(to);
    return 0;
}

static unsigned char *copied(const unsigned char *from, int size)
{
    unsigned char *to = malloc((size_t)size);
    memcpy(to, from, (size_t)size);
    return to;
}

EXPORT int libusb_get_config_descriptor(libusb_device *d, uint8_t index,
                                        struct libusb_config_descriptor **to)
{
    unsigned char raw[CONFIGURATION_ROOM], *at = raw + 9;
    struct libusb_config_descriptor *c = calloc(1, sizeof *c);
    struct libusb_interface *i = calloc(1, sizeof *i);
    struct libusb_interface_descriptor *s = calloc(1, sizeof *s);
    struct libusb_endpoint_descriptor *e;

    (void)d;
    if (index)
        return LIBUSB_ERROR_NOT_FOUND;
    configuration_descriptor(raw);
    memcpy(c, raw, 9);
    memcpy(s, at, 9);
    s->extra = copied(at + 9, 54);
    s->extra_length = 54;
    at += 9 + 54;
    s->endpoint = e = calloc(s->bNumEndpoints, sizeof *e);
    for (int k = 0; k < s->bNumEndpoints; k++, at += 7) {
        memcpy(&e[k], at, 4);
        e[k].wMaxPacketSize = (uint16_t)(at[4] | at[5] << 8);
        e[k].bInterval = at[6];
    }
    i->altsetting = s;
    i->num_altsetting = 1;
    c->interface = i;
    *to = c;
    return 0;
}

EXPORT int libusb_get_active_config_descriptor(libusb_device *d,
                                               struct libusb_config_descriptor **to)
{
    return libusb_get_config_descriptor(d, 0, to);
}

EXPORT int libusb_get_config_descriptor_by_value(libusb_device *d, uint8_t value,
                                                 struct libusb_config_descriptor **to)
{
    return value == 1 ? libusb_get_config_descriptor(d, 0, to) : LIBUSB_ERROR_NOT_FOUND;
}

EXPORT void libusb_free_config_descriptor(struct libusb_config_descriptor *c)
{
    if (!c)
        return;
    const struct libusb_interface_descriptor *s = c->interface->altsetting;
    free((void *)(uintptr_t)s->extra);
    free((void *)(uintptr_t)s->endpoint);
    free((void *)(uintptr_t)s);
    free((void *)(uintptr_t)c->interface);
    free(c);
}

EXPORT int libusb_get_max_packet_size(libusb_device *d, unsigned char endpoint)
{
    (void)d;
    return endpoint == INTERRUPT_IN ? 8 : config.high ? 512 : 64;
}

EXPORT int libusb_get_max_iso_packet_size(libusb_device *d, unsigned char e)
{
    return (void)d, (void)e, LIBUSB_ERROR_NOT_FOUND;
}
