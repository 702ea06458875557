/* How long each SCardTransmit takes: times READER COUNT, where READER is a part of its name.
 * Prints the microseconds of each call, one a line. With COUNT negative the calls are
 * SCardGetAttrib of the ATR, which reaches the driver and no card. */
#include <winscard.h>
#include <reader.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WARM 300

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec * 1e-3;
}

int main(int argc, char **argv)
{
	static const unsigned char apdu[] = {0x00, 0xA4, 0x00, 0x0C, 0x02, 0x3F, 0x00};
	int count = argc > 2 ? atoi(argv[2]) : 1000, attribute = count < 0;
	char names[1024], *name;
	unsigned char reply[258];
	DWORD protocol, length = sizeof names;
	SCARDCONTEXT context;
	SCARDHANDLE card;
	double *took;
	LONG status = SCardEstablishContext(SCARD_SCOPE_SYSTEM, NULL, NULL, &context);

	count = abs(count);
	took = malloc(sizeof *took * (size_t)count);
	if (status == SCARD_S_SUCCESS)
		status = SCardListReaders(context, NULL, names, &length);
	for (name = names; status == SCARD_S_SUCCESS && *name; name += strlen(name) + 1)
		if (strstr(name, argv[1]))
			break;
	if (status == SCARD_S_SUCCESS)
		status = SCardConnect(context, name, SCARD_SHARE_SHARED,
		                      SCARD_PROTOCOL_T0 | SCARD_PROTOCOL_T1, &card, &protocol);
	for (int i = -WARM; i < count && status == SCARD_S_SUCCESS; i++) {
		double began = now();

		length = sizeof reply;
		if (attribute)
			status = SCardGetAttrib(card, SCARD_ATTR_ATR_STRING, reply, &length);
		else
			status = SCardTransmit(card, protocol == SCARD_PROTOCOL_T0 ? SCARD_PCI_T0
			                                                           : SCARD_PCI_T1,
			                       apdu, sizeof apdu, NULL, reply, &length);
		if (i >= 0)
			took[i] = now() - began;
	}
	if (status != SCARD_S_SUCCESS || (!attribute && (length < 2 || reply[length - 2] != 0x90))) {
		fprintf(stderr, "PC/SC: %s\n", pcsc_stringify_error(status));
		return 1;
	}
	for (int i = 0; i < count; i++)
		printf("%.2f\n", took[i]);
	SCardDisconnect(card, SCARD_LEAVE_CARD);
	return 0;
}
