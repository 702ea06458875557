/* A driver that does nothing: a card is there, and every APDU is answered 9000. What a client of
 * pcscd pays with it, it pays with any driver. */
#include <string.h>

typedef unsigned long DWORD;
typedef unsigned char UCHAR;
typedef struct {
	DWORD Protocol, Length;
} SCARD_IO_HEADER;

static const UCHAR ATR[] = {0x3B, 0x00};

static long give(UCHAR *value, DWORD *length, const void *from, DWORD size)
{
	if (*length < size)
		return 618;
	memcpy(value, from, size);
	*length = size;
	return 0;
}

long IFDHCreateChannelByName(DWORD lun, char *name)
{
	(void)lun, (void)name;
	return 0;
}

long IFDHCreateChannel(DWORD lun, DWORD channel)
{
	(void)lun, (void)channel;
	return 0;
}

long IFDHCloseChannel(DWORD lun)
{
	(void)lun;
	return 0;
}

long IFDHGetCapabilities(DWORD lun, DWORD tag, DWORD *length, UCHAR *value)
{
	(void)lun;
	if (tag == 0x0303 || tag == 0x90303)
		return give(value, length, ATR, sizeof ATR);
	if (tag == 0x0FAD || tag == 0x0FAE || tag == 0x0FAF)
		return give(value, length, "\1", 1);
	return 600;
}

long IFDHSetCapabilities(DWORD lun, DWORD tag, DWORD length, UCHAR *value)
{
	(void)lun, (void)tag, (void)length, (void)value;
	return 600;
}

long IFDHSetProtocolParameters(DWORD lun, DWORD protocol, UCHAR flags, UCHAR a, UCHAR b, UCHAR c)
{
	(void)lun, (void)protocol, (void)flags, (void)a, (void)b, (void)c;
	return 0;
}

long IFDHPowerICC(DWORD lun, DWORD action, UCHAR *atr, DWORD *length)
{
	(void)lun;
	if (action == 501)
		return 0;
	return give(atr, length, ATR, sizeof ATR);
}

long IFDHTransmitToICC(DWORD lun, SCARD_IO_HEADER send, UCHAR *tx, DWORD txlen, UCHAR *rx,
                       DWORD *rxlen, SCARD_IO_HEADER *recv)
{
	(void)lun, (void)send, (void)tx, (void)txlen, (void)recv;
	return give(rx, rxlen, "\x90", 2);
}

long IFDHControl(DWORD lun, DWORD code, UCHAR *tx, DWORD txlen, UCHAR *rx, DWORD rxlen,
                 DWORD *returned)
{
	(void)lun, (void)code, (void)tx, (void)txlen, (void)rx, (void)rxlen;
	*returned = 0;
	return 606;
}

long IFDHICCPresence(DWORD lun)
{
	(void)lun;
	return 615;
}
