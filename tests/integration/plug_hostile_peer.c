/* The plug against a helper that breaks every rule, in threads, with system calls that fail, and
 * without descriptors: for a sanitizer.
 *
 * This program is both sides. Started by the plug as its interpreter (first argument "-I") it is
 * the helper. Otherwise: plug_hostile_peer SEED STEPS calls the plug. It prints how many calls were
 * made and how many of them succeeded, or the first thing that is wrong. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long DWORD;
typedef unsigned char UCHAR;
typedef struct {
	DWORD Protocol, Length;
} SCARD_IO_HEADER;
long IFDHCreateChannelByName(DWORD, char *);
long IFDHCloseChannel(DWORD);
long IFDHGetCapabilities(DWORD, DWORD, DWORD *, UCHAR *);
long IFDHSetCapabilities(DWORD, DWORD, DWORD, UCHAR *);
long IFDHSetProtocolParameters(DWORD, DWORD, UCHAR, UCHAR, UCHAR, UCHAR);
long IFDHPowerICC(DWORD, DWORD, UCHAR *, DWORD *);
long IFDHTransmitToICC(DWORD, SCARD_IO_HEADER, UCHAR *, DWORD, UCHAR *, DWORD *,
                       SCARD_IO_HEADER *);
long IFDHControl(DWORD, DWORD, UCHAR *, DWORD, UCHAR *, DWORD, DWORD *);
long IFDHICCPresence(DWORD);
void plug_fail(int calls, int error); /* plug_faults.h */

#define THREADS 3 /* one channel each; two of them share a helper */
#define MOST 70000
#define SLOW_S 8.0 /* the longest limits of the plug, 1 + 3 s, and a busy machine */

static unsigned rnd(unsigned *seed, unsigned below)
{
	*seed = *seed * 1103515245u + 12345u;
	return (*seed >> 8) % below;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The helper ----------------------------------------------------------------------------------- */

struct reply {
	uint32_t kind;
	int32_t code;
	uint32_t length;
};
struct request {
	uint32_t operation, argument, capacity, length;
};
static unsigned char frame[sizeof(struct reply) + 2 * MOST];

static void say(int fd, uint32_t kind, int32_t code, uint32_t length, size_t size)
{
	struct reply head = {kind, code, length};

	memcpy(frame, &head, sizeof head);
	send(fd, frame, size, MSG_NOSIGNAL);
}

static void answer(int fd, int event, const struct request *asked, unsigned *seed)
{
	static const int codes[] = {0, 0, 0, 0, 600, 612, 615, 616, 617, 618, -1, INT32_MIN};
	const unsigned head = sizeof(struct reply);
	unsigned room = asked->capacity < MOST ? asked->capacity : MOST, length = rnd(seed, room + 1);
	int code = codes[rnd(seed, 12)];
	char events[] = "!!x?";

	if (asked->operation == 1 && rnd(seed, 8)) { /* OP_OPEN: or nothing else is ever asked */
		say(fd, 0, 0, 1, head + 1);
		return;
	}
	switch (rnd(seed, 24)) {
	case 0: /* a head that is cut short */
		say(fd, 0, 0, 0, 1 + rnd(seed, head - 1));
		return;
	case 1: /* lengths that lie */
		say(fd, 0, code, length + 1 + rnd(seed, 9), head + length);
		return;
	case 2:
		say(fd, 0, code, UINT32_MAX - rnd(seed, 16), head + length);
		return;
	case 3: /* more than there is room for */
		say(fd, 0, code, room + 1 + rnd(seed, 999), head + room + 1);
		return;
	case 4: {
		unsigned more = room + 1 + rnd(seed, 999);
		say(fd, 0, code, more, head + more);
		return;
	}
	case 5: /* kinds that there are not */
		say(fd, 2 + rnd(seed, UINT32_MAX - 2), code, length, head + length);
		return;
	case 6: /* nothing at all */
		send(fd, frame, 0, MSG_NOSIGNAL);
		return;
	case 7: /* alive, with data that are not asked for */
		for (unsigned i = rnd(seed, 20); i > 0; i--)
			say(fd, 1, code, rnd(seed, room + 1), head);
		say(fd, 1, code, length, head + length);
		break;
	case 8:
		shutdown(fd, SHUT_RDWR);
		return;
	case 9:
		shutdown(fd, SHUT_WR);
		return;
	case 10:
		send(event, events, 1 + rnd(seed, 4), MSG_NOSIGNAL);
		break;
	case 11:
		shutdown(event, SHUT_RDWR);
		break;
	case 12: /* an answer that nobody asked for */
		say(fd, 0, code, length, head + length);
		break;
	case 13:
		if (!rnd(seed, 3))
			_exit(0);
		break;
	case 14:
		if (!rnd(seed, 3))
			kill(getpid(), SIGKILL);
		break;
	case 15: /* stuck: the plug has to kill this process */
		if (!rnd(seed, 60))
			kill(getpid(), rnd(seed, 2) ? SIGSTOP : SIGKILL);
		break;
	case 16: /* nobody can be passed any more, and the process lives */
		if (!rnd(seed, 3))
			shutdown(3, SHUT_RDWR);
		break;
	default:
		break;
	}
	say(fd, 0, code, length, head + length);
}

static int serve(void)
{
	struct pollfd waits[1 + 2 * THREADS] = {{.fd = 3, .events = POLLIN}};
	int events[1 + 2 * THREADS];
	nfds_t count = 1;
	unsigned seed = (unsigned)getpid() * 2654435761u;
	static unsigned char buffer[1 << 18];

	while (count < 1 + 2 * THREADS && poll(waits, count, -1) > 0) {
		if (waits[0].revents) {
			char room[CMSG_SPACE(2 * sizeof(int))];
			uint32_t lun;
			struct iovec part = {&lun, sizeof lun};
			struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room,
			                         .msg_controllen = sizeof room};
			int fds[2];

			if (recvmsg(3, &message, 0) <= 0 || !CMSG_FIRSTHDR(&message))
				_exit(0);
			memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fds);
			waits[count].fd = fds[0];
			waits[count].events = POLLIN;
			waits[count].revents = 0;
			events[count++] = fds[1];
		}
		for (nfds_t i = 1; i < count; i++) {
			struct request asked;
			ssize_t got = waits[i].revents ? recv(waits[i].fd, buffer, sizeof buffer, 0) : 0;

			if (waits[i].revents && got < (ssize_t)sizeof asked)
				waits[i].fd = -1; /* hung up: the descriptors stay open, as of a careless helper */
			if (got < (ssize_t)sizeof asked)
				continue;
			memcpy(&asked, buffer, sizeof asked);
			answer(waits[i].fd, events[i], &asked, &seed);
		}
	}
	_exit(0);
}

/* pcscd ---------------------------------------------------------------------------------------- */

static unsigned first_seed, steps;
static unsigned made[THREADS], succeeded[THREADS];

static void fail(const char *what, long number)
{
	printf("%s: %ld\n", what, number);
	fflush(stdout);
	_exit(1);
}

static void call(DWORD lun, unsigned *seed, int n)
{
	DWORD room = rnd(seed, 4) ? rnd(seed, 300) : rnd(seed, MOST), length = room;
	DWORD size = rnd(seed, 4) ? rnd(seed, 300) : rnd(seed, MOST);
	/* exactly as long as told: one byte more is an error that the sanitizer sees */
	UCHAR *into = malloc(room ? room : 1), *data = malloc(size ? size : 1);
	SCARD_IO_HEADER head = {rnd(seed, 3), sizeof head};
	long (*wait)(DWORD, int), (*stop)(DWORD);
	DWORD pointer = sizeof wait;
	char name[] = "virtual:";
	double began = now();
	long code = -1;

	if (!into || !data)
		fail("memory", errno);
	memset(data, n, size ? size : 1);
	switch (rnd(seed, 12)) {
	case 0:
		code = IFDHCreateChannelByName(lun, name);
		break;
	case 1:
		if (!rnd(seed, 4))
			code = IFDHCloseChannel(lun);
		break;
	case 2:
		code = IFDHGetCapabilities(lun, rnd(seed, 4096), &length, into);
		break;
	case 3:
		code = IFDHSetCapabilities(lun, rnd(seed, 4096), size, data);
		break;
	case 4:
		code = IFDHSetProtocolParameters(lun, rnd(seed, 5), 0, 0, 0, 0);
		break;
	case 5:
		code = IFDHPowerICC(lun, 500 + rnd(seed, 3), into, &length);
		break;
	case 6:
	case 7:
		code = IFDHTransmitToICC(lun, head, data, size, into, &length, NULL);
		break;
	case 8:
		code = IFDHControl(lun, rnd(seed, 4096), data, size, into, room, &length);
		break;
	case 9:
		if (!IFDHGetCapabilities(lun, 0x0FB3, &pointer, (UCHAR *)&wait))
			code = wait(lun, (int)rnd(seed, 5));
		break;
	case 10:
		if (!IFDHGetCapabilities(lun, 0x0FB2, &pointer, (UCHAR *)&stop))
			code = stop(lun);
		break;
	default:
		code = IFDHICCPresence(lun);
		break;
	}
	if (length > room)
		fail("a length beyond the room", (long)length);
	if (now() - began > SLOW_S)
		fail("seconds that a call took", (long)(now() - began));
	made[n]++;
	succeeded[n] += code == 0 || code == 615;
	free(into);
	free(data);
}

static void *use(void *argument)
{
	int n = (int)(intptr_t)argument;
	unsigned seed = first_seed * 31 + (unsigned)n;
	DWORD lun = n < 2 ? 0x10000u + (DWORD)n : (DWORD)n << 16;
	char name[] = "virtual:";
	static const int errors[] = {EMFILE, ENOMEM, ENOBUFS, EAGAIN, EINTR, EPIPE};

	for (unsigned i = 0; i < steps; i++) {
		if (i % 20 == 0) /* else most calls would meet no channel */
			IFDHCreateChannelByName(lun, name);
		if (n == 0 && !rnd(&seed, 4))
			plug_fail((int)rnd(&seed, 30), errors[rnd(&seed, 6)]);
		call(lun, &seed, n);
	}
	return NULL;
}

static int descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	int count = 0;

	while (folder && readdir(folder))
		count++;
	closedir(folder);
	return count;
}

/* Every number of free descriptors, from none to enough. */
static void run_out(void)
{
	struct rlimit before, little;
	char name[] = "virtual:";

	getrlimit(RLIMIT_NOFILE, &before);
	for (rlim_t limit = 3; limit < 24; limit++) {
		little = before;
		little.rlim_cur = limit;
		setrlimit(RLIMIT_NOFILE, &little);
		IFDHCreateChannelByName(0x90000, name);
		IFDHICCPresence(0x90000);
		IFDHCloseChannel(0x90000);
	}
	setrlimit(RLIMIT_NOFILE, &before);
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	unsigned calls = 0, good = 0;
	int before;

	if (argc > 1 && !strcmp(argv[1], "-I"))
		return serve();
	alarm(90); /* a plug that hangs */
	first_seed = (unsigned)atoi(argv[1]);
	steps = (unsigned)atoi(argv[2]);
	before = descriptors();
	for (intptr_t n = 0; n < THREADS; n++)
		if (pthread_create(&threads[n], NULL, use, (void *)n))
			fail("thread", n);
	for (int n = 0; n < THREADS; n++)
		pthread_join(threads[n], NULL);
	plug_fail(-1, 0);
	run_out();
	IFDHCloseChannel(0x10000);
	IFDHCloseChannel(0x10001);
	IFDHCloseChannel(0x20000);
	if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)
		fail("a helper is left", 1);
	if (descriptors() != before)
		fail("descriptors left", descriptors() - before);
	for (int n = 0; n < THREADS; n++) {
		calls += made[n];
		good += succeeded[n];
	}
	printf("%u calls, %u succeeded\n", calls, good);
	return 0;
}
