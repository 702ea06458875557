/* A stand-in for libusb-1.0: CCID readers with a card each, for measuring drivers on a machine
 * without USB. Its folder goes first in LD_LIBRARY_PATH: libccid, pyusb and every other user of
 * libusb then find the stand-in under libusb's name.
 *
 * What is modelled: libusb 1.0.26 on Linux, as far as libusb costs time. A transfer is allocated,
 * put into the list that is sorted by time limits, and a timer descriptor is set for its limit.
 * One call to the kernel submits the transfer. The thread that has the event lock waits in poll();
 * all other threads wait on a condition variable, which is broadcast when that thread is done. One
 * call to the kernel fetches the transfer, a second one finds nothing more. The timer is unset and
 * the callback is called. So a synchronous transfer makes the same six system calls as the real
 * one: timer, submit, poll, reap, timer, reap. Where the real libusb has a descriptor of usbfs, the
 * stand-in has a timer descriptor (an event descriptor where all delays are 0), which becomes
 * readable when the first transfer is due: a wait sleeps in the kernel and is ended by an
 * interrupt, as on a real bus. ../calibrate.c shows how near the two are.
 *
 * What is not modelled: the kernel's own work for a URB (about 2 to 4 us and an interrupt;
 * STANDIN_URB_NS burns that time at each submission), host controllers and hubs, udev and sysfs,
 * the thread that looks for hot-plug events, claims between processes, unplugging, lost or damaged
 * packets, and errors of a card. A card takes a fixed time for an APDU, however many bytes it has.
 *
 * Environment, all optional:
 *   STANDIN_READERS   number of readers (1)
 *   STANDIN_LEVEL     tpdu (default), short, extended: the level of exchange
 *   STANDIN_T         protocol of the card: 0 (default), 1
 *   STANDIN_SPEED     full, high: of descriptors and packets (high)
 *   STANDIN_OUT_US, STANDIN_IN_US   time of a bulk transfer, us (0)
 *   STANDIN_RATE      bytes a microsecond, on top of that time (0: bytes take no time)
 *   STANDIN_CARD_US   time that the card takes for an APDU or a power-up, us (0)
 *   STANDIN_EARLY_US  subtracted from every delay: what a wake-up takes on this machine, us (0)
 *   STANDIN_FRAME_US  transfers end only at multiples of this, us (0: at any time)
 *   STANDIN_URB_NS    computing time of a submission, ns (0)
 *   STANDIN_MAX       dwMaxCCIDMessageLength (271)
 *   STANDIN_NOTIFY    1 (default): a notification comes when the first is asked for; 0: none ever
 *   STANDIN_EVENTS    0: the reader has no interrupt endpoint (1)
 *   STANDIN_COUNTERS  a file that all processes count into: struct counters in standin.h
 *
 * This file has the functions of libusb that do next to nothing.
 */
#include "standin.h"

EXPORT int libusb_has_capability(uint32_t capability)
{
    return capability <= LIBUSB_CAP_HAS_HOTPLUG;
}

EXPORT int libusb_hotplug_register_callback(libusb_context *c, int events, int flags, int v, int p,
                                            int k, libusb_hotplug_callback_fn call, void *data,
                                            libusb_hotplug_callback_handle *to)
{
    (void)c, (void)events, (void)flags, (void)v, (void)p, (void)k, (void)call, (void)data;
    if (to)
        *to = 1;
    return 0;
}

EXPORT void libusb_hotplug_deregister_callback(libusb_context *c, libusb_hotplug_callback_handle h)
{
    (void)c, (void)h;
}

EXPORT void libusb_set_debug(libusb_context *c, int level)
{
    (void)c, (void)level;
}

EXPORT int libusb_set_option(libusb_context *c, enum libusb_option option, ...)
{
    return (void)c, (void)option, 0;
}

EXPORT const char *libusb_error_name(int code)
{
    static _Thread_local char text[32];
    snprintf(text, sizeof text, "libusb error %d", code);
    return text;
}

EXPORT const char *libusb_strerror(int code)
{
    return libusb_error_name(code);
}

EXPORT const struct libusb_version *libusb_get_version(void)
{
    static const struct libusb_version version = {1, 0, 26, 11724, "", "stand-in"};
    return &version;
}

EXPORT const struct libusb_pollfd **libusb_get_pollfds(libusb_context *c)
{
    return (void)c, NULL;
}

EXPORT void libusb_free_pollfds(const struct libusb_pollfd **fds)
{
    (void)fds;
}
