/* What the real libusb costs, with a usbfs that answers at once: to be held beside the stand-in's
 * profile 0. The calls of libusb to the kernel on its device descriptor end in this program, where
 * each is one system call on an event descriptor; all else is the system's libusb.
 *
 *   calibrate [COUNT]       prints us an APDU (two transfers): wall, CPU; then the same with both
 * at once
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <libusb.h>
#include <sys/ioctl.h>
#include <linux/usbdevice_fs.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int device = -1;
static size_t at;
static struct usbdevfs_urb *done[8];
static int count;
static unsigned char reply[14] = {0x80, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x90, 0};
static const unsigned char descriptors[] = {
    18,   1,  0, 2, 0, 0, 0,    64,   0xE6, 0x08, 0x37, 0x34, 1, 2,    0,    0, 0, 1, 9,
    2,    39, 0, 1, 1, 0, 0x80, 50,   9,    4,    0,    0,    3, 0x0B, 0,    0, 0, 7, 5,
    0x02, 2,  0, 2, 0, 7, 5,    0x82, 2,    0,    2,    0,    7, 5,    0x81, 3, 8, 0, 8,
};

static void raw(long number, uint64_t value)
{
    if (syscall(number, device, &value, sizeof value) < 0 && errno != EAGAIN)
        abort();
}
static void busy(void)
{
    raw(SYS_write, UINT64_MAX - 1);
} /* not writable any more */
static void ready(void)
{
    raw(SYS_read, 0);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    void *argument;

    va_start(list, request);
    argument = va_arg(list, void *);
    va_end(list);
    if (fd != device)
        return (int)syscall(SYS_ioctl, fd, request, argument);
    switch (request) {
    case USBDEVFS_CONNECTINFO:
        memset(argument, 0, sizeof(struct usbdevfs_connectinfo));
        ((struct usbdevfs_connectinfo *)argument)->devnum = 2;
        return 0;
    case USBDEVFS_GET_CAPABILITIES:
        *(uint32_t *)argument = USBDEVFS_CAP_ZERO_PACKET | USBDEVFS_CAP_NO_PACKET_SIZE_LIM |
                                USBDEVFS_CAP_BULK_SCATTER_GATHER |
                                USBDEVFS_CAP_REAP_AFTER_DISCONNECT;
        return 0;
    case USBDEVFS_CONTROL: {
        struct usbdevfs_ctrltransfer *c = argument;
        ((unsigned char *)c->data)[0] = 1;
        return 1;
    }
    case USBDEVFS_SUBMITURB: {
        struct usbdevfs_urb *u = argument;
        if (u->endpoint == 0x81)
            return 0; /* armed for ever */
        u->status = 0;
        u->actual_length = u->buffer_length;
        if (u->endpoint == 0x02) {
            reply[6] = ((unsigned char *)u->buffer)[6];
        } else {
            memcpy(u->buffer, reply, sizeof reply);
            u->actual_length = sizeof reply;
        }
        done[count++] = u;
        ready();
        return 0;
    }
    case USBDEVFS_REAPURBNDELAY:
        if (!count) {
            busy();
            errno = EAGAIN;
            return -1;
        }
        syscall(SYS_ioctl, fd, 0, 0);
        *(struct usbdevfs_urb **)argument = done[--count];
        return 0;
    }
    return 0;
}

off_t lseek(int fd, off_t offset, int whence)
{
    if (fd == device)
        return at = (size_t)offset;
    return syscall(SYS_lseek, fd, offset, whence);
}
off_t lseek64(int fd, off_t offset, int whence)
{
    return lseek(fd, offset, whence);
}

ssize_t read(int fd, void *to, size_t size)
{
    if (fd != device)
        return syscall(SYS_read, fd, to, size);
    if (size > sizeof descriptors - at)
        size = sizeof descriptors - at;
    memcpy(to, descriptors + at, size);
    at += size;
    return (ssize_t)size;
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void LIBUSB_CALL never(struct libusb_transfer *t)
{
    (void)t;
}

/* The same with two transfers made once, submitted at once, without time limits or callbacks:
 * libusb notes the length of the reply in the transfer, which ends the wait. */
static int at_once(libusb_device_handle *h, unsigned char *message, unsigned char *answer, int n)
{
    struct libusb_transfer *out = libusb_alloc_transfer(0), *in = libusb_alloc_transfer(0);
    struct timeval slice = {0, 250000};
    libusb_fill_bulk_transfer(out, h, 0x02, message, 15, NULL, NULL, 0);
    libusb_fill_bulk_transfer(in, h, 0x82, answer, 512, NULL, NULL, 0);
    for (int round = 0; round < 5; round++) {
        double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < n; i++) {
            message[6]++;
            in->actual_length = 0;
            if (libusb_submit_transfer(out) || libusb_submit_transfer(in))
                return 1;
            while (!in->actual_length)
                libusb_handle_events_timeout_completed(NULL, &slice, &in->actual_length);
            if (out->status || in->status || answer[6] != message[6])
                return 1;
        }
        wall = seconds(CLOCK_MONOTONIC) - wall;
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        printf("%.2f us an APDU, CPU %.2f; both transfers at once\n", wall / n * 1e6,
               cpu / n * 1e6);
    }
    return 0;
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 100000, moved;
    unsigned char message[15] = {0x6F, 5}, answer[512], event[8];
    libusb_device_handle *h;
    struct timeval none = {0, 0};

    libusb_set_option(NULL, LIBUSB_OPTION_NO_DEVICE_DISCOVERY);
    if (libusb_init(NULL))
        return 1;
    device = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    busy();
    int code = libusb_wrap_sys_device(NULL, device, &h);
    if (code) {
        fprintf(stderr, "%s\n", libusb_error_name(code));
        return 1;
    }
    libusb_claim_interface(h, 0);
    if (argc > 2) {
        struct libusb_transfer *t = libusb_alloc_transfer(0);
        libusb_fill_interrupt_transfer(t, h, 0x81, event, 8, never, NULL, 0);
        libusb_submit_transfer(t);
    }
    for (int round = 0; round < 5; round++) {
        double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), look;
        for (int i = 0; i < n; i++) {
            message[6]++;
            if (libusb_bulk_transfer(h, 0x02, message, sizeof message, &moved, 5000) ||
                libusb_bulk_transfer(h, 0x82, answer, sizeof answer, &moved, 5000) ||
                answer[6] != message[6])
                return 1;
        }
        wall = seconds(CLOCK_MONOTONIC) - wall;
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        look = seconds(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < n; i++)
            libusb_handle_events_timeout_completed(NULL, &none, NULL);
        look = seconds(CLOCK_PROCESS_CPUTIME_ID) - look;
        printf("%.2f us an APDU, CPU %.2f; a look for events %.2f\n", wall / n * 1e6, cpu / n * 1e6,
               look / n * 1e6);
    }
    return at_once(h, message, answer, n);
}
