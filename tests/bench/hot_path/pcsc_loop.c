/* The daemon without Python in the way: SCardTransmit in a loop.
 *
 *   pcsc_loop COUNT         the first reader; prints APDUs a second and the reply
 */
#include <winscard.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    static const unsigned char apdu[] = {0x00, 0x10, 0x00, 0x00, 0x02};
    int count = argc > 1 ? atoi(argv[1]) : 1000;
    char names[1024];
    unsigned char reply[258];
    DWORD protocol, length = sizeof names;
    SCARDCONTEXT context;
    SCARDHANDLE card;
    double began = 0;
    LONG status = SCardEstablishContext(SCARD_SCOPE_SYSTEM, NULL, NULL, &context);

    if (status == SCARD_S_SUCCESS)
        status = SCardListReaders(context, NULL, names, &length);
    if (status == SCARD_S_SUCCESS)
        status = SCardConnect(context, names, SCARD_SHARE_SHARED,
                              SCARD_PROTOCOL_T0 | SCARD_PROTOCOL_T1, &card, &protocol);
    for (int i = -50; i < count && status == SCARD_S_SUCCESS; i++) {
        if (i == 0)
            began = now();
        length = sizeof reply;
        status = SCardTransmit(card, protocol == SCARD_PROTOCOL_T0 ? SCARD_PCI_T0 : SCARD_PCI_T1,
                               apdu, sizeof apdu, NULL, reply, &length);
    }
    if (status != SCARD_S_SUCCESS) {
        fprintf(stderr, "PC/SC: %s\n", pcsc_stringify_error(status));
        return 1;
    }
    printf("%.1f ", count / (now() - began));
    for (DWORD i = 0; i < length; i++)
        printf("%02x", reply[i]);
    printf("\n");
    SCardDisconnect(card, SCARD_LEAVE_CARD);
    return 0;
}
