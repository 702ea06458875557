/* C2, D2: SCardTransmit in a loop.
 *
 *   pcsc_loop APDU NUMBER        in the reader with that number, from 0
 *   pcsc_loop connect NUMBER     once: ms to the first response; powers the card off
 */
#include <winscard.h>
#include "loop.h"

static SCARDHANDLE card;
static DWORD protocol;
static unsigned char apdu[APDU_ROOM], response[APDU_ROOM];
static int apdu_size;

static void check(LONG status)
{
    if (status == SCARD_S_SUCCESS)
        return;
    fprintf(stderr, "PC/SC: %s\n", pcsc_stringify_error(status));
    exit(1);
}

static int once(void)
{
    DWORD length = sizeof response;

    check(SCardTransmit(card, protocol == SCARD_PROTOCOL_T0 ? SCARD_PCI_T0 : SCARD_PCI_T1, apdu,
                        (DWORD)apdu_size, NULL, response, &length));
    return (int)length;
}

int main(int argc, char **argv)
{
    char names[4096], *name = names;
    DWORD length = sizeof names;
    SCARDCONTEXT context;
    int is_connect = !strcmp(argv[1], "connect");
    double began = seconds(CLOCK_MONOTONIC);

    check(SCardEstablishContext(SCARD_SCOPE_SYSTEM, NULL, NULL, &context));
    check(SCardListReaders(context, NULL, names, &length));
    for (int i = argc > 2 ? atoi(argv[2]) : 0; i > 0; i--)
        name += strlen(name) + 1;
    check(SCardConnect(context, name, SCARD_SHARE_SHARED, SCARD_PROTOCOL_T0 | SCARD_PROTOCOL_T1,
                       &card, &protocol));
    apdu_size = read_apdu(is_connect ? "0010000002" : argv[1], apdu);
    if (is_connect) {
        once();
        printf("{\"ms\": %.3f}\n", (seconds(CLOCK_MONOTONIC) - began) * 1e3);
        SCardDisconnect(card, SCARD_UNPOWER_CARD);
        return 0;
    }
    serve(once, response);
    SCardDisconnect(card, SCARD_LEAVE_CARD);
    return 0;
}
