/* Calls every function of the plug, kills its helper and stops it, so that a sanitizer sees the
 * paths of errors, too. Prints "done" at the end. */
#include <assert.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long DWORD;
typedef unsigned char UCHAR;
typedef struct {
	DWORD Protocol, Length;
} SCARD_IO_HEADER;
long IFDHCreateChannelByName(DWORD, char *);
long IFDHCreateChannel(DWORD, DWORD);
long IFDHCloseChannel(DWORD);
long IFDHGetCapabilities(DWORD, DWORD, DWORD *, UCHAR *);
long IFDHSetCapabilities(DWORD, DWORD, DWORD, UCHAR *);
long IFDHSetProtocolParameters(DWORD, DWORD, UCHAR, UCHAR, UCHAR, UCHAR);
long IFDHPowerICC(DWORD, DWORD, UCHAR *, DWORD *);
long IFDHTransmitToICC(DWORD, SCARD_IO_HEADER, UCHAR *, DWORD, UCHAR *, DWORD *,
                       SCARD_IO_HEADER *);
long IFDHControl(DWORD, DWORD, UCHAR *, DWORD, UCHAR *, DWORD, DWORD *);
long IFDHICCPresence(DWORD);

#define LUN 0x50000ul
#define CHECK(what, wanted)                                                            \
	do {                                                                           \
		long got = (what);                                                     \
		if (got != (wanted)) {                                                 \
			printf("line %d: %ld, not %ld\n", __LINE__, got, (long)(wanted)); \
			exit(1);                                                       \
		}                                                                      \
	} while (0)

typedef long (*wait_function)(DWORD, int);
static wait_function waiting;

static void *poll_it(void *unused)
{
	(void)unused;
	return (void *)waiting(LUN, 60000);
}

static pid_t child(void)
{
	char path[64], line[64];
	pid_t pid = 0;
	FILE *file;

	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	file = fopen(path, "r");
	assert(file);
	while (fscanf(file, "%63s", line) == 1)
		pid = atoi(line);
	fclose(file);
	return pid;
}

static void use(void)
{
	UCHAR select[] = {0x00, 0xA4, 0x00, 0x0C, 0x02, 0x3F, 0x00}, atr[33], answer[300];
	DWORD length = sizeof atr;
	SCARD_IO_HEADER head = {1, sizeof head};

	for (int i = 0; IFDHICCPresence(LUN) != 615; i++) {
		assert(i < 100);
		if (waiting) /* then this thread has to, as one that tells others */
			waiting(LUN, 10);
		usleep(100000);
	}
	CHECK(IFDHPowerICC(LUN, 500, atr, &length), 0);
	assert(length > 1 && atr[0] == 0x3B);
	CHECK(IFDHSetProtocolParameters(LUN, 2, 0, 0, 0, 0), 0);
	for (int i = 0; i < 100; i++) {
		length = sizeof answer;
		CHECK(IFDHTransmitToICC(LUN, head, select, sizeof select, answer, &length, NULL), 0);
		assert(length == 2 && answer[0] == 0x90);
	}
	length = 1;
	CHECK(IFDHTransmitToICC(LUN, head, select, sizeof select, answer, &length, NULL), 618);
	CHECK(IFDHControl(LUN, 0x42000D48, NULL, 0, answer, sizeof answer, &length), 0);
	assert(length == 6);
}

int main(void)
{
	char name[] = "virtual:", wrong[] = "virtual:ffff:ffff";
	char lengthy[400];
	UCHAR value[300];
	DWORD length;
	pthread_t thread;
	void *code;
	pid_t pid;

	memset(lengthy, 'x', sizeof lengthy);
	lengthy[sizeof lengthy - 1] = 0;
	CHECK(IFDHCreateChannelByName(LUN, lengthy), 612);
	CHECK(IFDHCreateChannelByName(LUN, NULL), 612);
	CHECK(IFDHCreateChannelByName(LUN, wrong), 617);
	CHECK(IFDHCreateChannelByName(LUN, name), 0);
	CHECK(IFDHCreateChannelByName(LUN, name), 612);
	use();
	for (DWORD tag = 0x0FAB; tag < 0x0FB6; tag++) {
		length = sizeof value;
		IFDHGetCapabilities(LUN, tag, &length, value);
		assert(length <= sizeof value);
	}
	CHECK(IFDHSetCapabilities(LUN, 0x0303, 0, NULL), 600);
	length = sizeof waiting;
	CHECK(IFDHGetCapabilities(LUN, 0x0FB3, &length, (UCHAR *)&waiting), 0);
	assert(length == sizeof waiting);
	while (waiting(LUN, 300) == 0 && length++ < sizeof waiting + 3)
		;

	pthread_create(&thread, NULL, poll_it, NULL);
	pid = child();
	assert(pid > 0);
	usleep(200000);
	kill(pid, SIGKILL);
	pthread_join(thread, &code);
	assert((long)code == 612);
	CHECK(IFDHICCPresence(LUN), 612);
	CHECK(waiting(LUN, 10), 612);
	CHECK(IFDHICCPresence(LUN), 616);
	use();

	pid = child();
	kill(pid, SIGSTOP);
	usleep(100000);
	CHECK(IFDHICCPresence(LUN), 612);
	use();
	CHECK(IFDHCloseChannel(LUN), 0);
	CHECK(IFDHCloseChannel(LUN), 612);
	CHECK(IFDHCreateChannel(LUN, 0x200000) != 0, 1);
	assert(child() == 0);
	printf("done\n");
	return 0;
}
