/* The floor: one XfrBlock after the other through libusb, from C.
 *
 *   libusb_loop COUNT       the first reader 08e6:4433; prints APDUs a second and the reply
 */
#include <libusb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static libusb_device_handle *handle;
static unsigned char in_endpoint, out_endpoint, sequence;
static unsigned char reply[512];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int transact(int type, const unsigned char *data, int length)
{
    unsigned char message[64] = {0};
    int moved, status;
    message[0] = type;
    message[1] = length;
    message[6] = ++sequence;
    memcpy(message + 10, data, length);
    status = libusb_bulk_transfer(handle, out_endpoint, message, 10 + length, &moved, 5000);
    do {
        if (status == 0)
            status = libusb_bulk_transfer(handle, in_endpoint, reply, sizeof reply, &moved, 5000);
        if (status != 0) {
            fprintf(stderr, "libusb: %s\n", libusb_error_name(status));
            exit(1);
        }
    } while (moved < 10 || reply[6] != sequence);
    return moved;
}

int main(int argc, char **argv)
{
    static const unsigned char apdu[] = {0x00, 0x10, 0x00, 0x00, 0x02};
    int count = argc > 1 ? atoi(argv[1]) : 1000, length = 0;
    struct libusb_config_descriptor *configuration;
    double began;

    libusb_init(NULL);
    handle = libusb_open_device_with_vid_pid(NULL, 0x08e6, 0x4433);
    if (handle == NULL) {
        fprintf(stderr, "no reader 08e6:4433\n");
        return 1;
    }
    libusb_get_active_config_descriptor(libusb_get_device(handle), &configuration);
    const struct libusb_interface_descriptor *interface = configuration->interface[0].altsetting;
    for (int i = 0; i < interface->bNumEndpoints; i++) {
        const struct libusb_endpoint_descriptor *e = &interface->endpoint[i];
        if ((e->bmAttributes & 3) == LIBUSB_TRANSFER_TYPE_BULK)
            *(e->bEndpointAddress & 0x80 ? &in_endpoint : &out_endpoint) = e->bEndpointAddress;
    }
    libusb_claim_interface(handle, 0);
    transact(0x65, NULL, 0);
    transact(0x62, NULL, 0);
    for (int i = 0; i < 50; i++)
        transact(0x6f, apdu, sizeof apdu);
    began = now();
    for (int i = 0; i < count; i++)
        length = transact(0x6f, apdu, sizeof apdu);
    printf("%.1f ", count / (now() - began));
    for (int i = 10; i < length; i++)
        printf("%02x", reply[i]);
    printf("\n");
    libusb_release_interface(handle, 0);
    libusb_close(handle);
    return 0;
}
