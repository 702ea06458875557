/* The plug: a driver of pcscd that hands every call to a helper process, where the driver is.
 *
 * One helper serves one USB device (bus and address) with all its slots and interfaces. The first
 * channel of the device starts the helper. The helper ends when its control socket is closed: by
 * the plug after the last channel, or by the kernel when pcscd has ended. Each channel (Lun) has
 * two sockets of its own: one for requests, one for events.
 *
 * The helper alone knows how long an exchange may take. While a request runs, the helper sends
 * KIND_ALIVE once a second. A helper that sends nothing for SILENCE_S is stuck: the request fails
 * and the plug kills the helper. When a channel is hung up on, or receives a frame that is not
 * valid, the request fails and this channel alone is lost. The next presence query connects a lost
 * channel again: to the same helper, or to a new one (at most one a second) if the old helper has
 * ended. That query then reports once that there is no card, so that no client takes the next card
 * for the old one. When this process has no free descriptor, memory or process, the call fails and
 * the helper stays.
 *
 * The section "Shared with Python" declares the frames.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SILENCE_S
#define SILENCE_S 10 /* a helper that sends nothing for this time is stuck */
#endif
#ifndef START_S
#define START_S 120 /* the same limit until the first frame: see start_helper() */
#endif
#ifndef RESTART_S
#define RESTART_S 1.0 /* shortest time between two starts of a helper */
#endif
#define HELPER_END_S 3.0 /* time for a helper that was asked to end: to power cards off */
#define ASK_MS 400 /* polling interval for a reader that sends no events */
#define CHANNELS 256
#define NAME_SIZE 256
#define LOG_ERROR 2 /* PCSC_LOG_ERROR of pcscd */
/* The type of a request socket. With SOCK_SEQPACKET a frame is one message: one call receives the
 * frame. With SOCK_STREAM the kernel wakes a waiting thread also when the other end reads what this
 * end has sent. */
#ifdef __APPLE__
#define FRAMES SOCK_STREAM
#else
#define FRAMES SOCK_SEQPACKET
#endif

/* Shared with Python ---------------------------------------------------------------------------
 *
 * tests/unit/test_plug_numbers.py compares this section with ccid/pcsc/numbers/ifd_numbers.py,
 * ccid/pcsc/plug/frames.py and the modules beside it: a declaration that only one side has, or that
 * differs, fails the test. */

#define BUFFER_SIZE (1 << 17) /* bytes of the longest request, header included */
#define CONTROL_FD 3          /* the descriptor of the control socket in the helper */
#define READER_SHIFT 16       /* Lun: reader number above this bit, slot below */
#define MAX_READERS 255       /* the value of TAG_SIMULTANEOUS_ACCESS */
#define HELPER_MODULE "ccid.pcsc.plug.helper"
#define INTERPRETER "interpreter" /* the file beside this shared object with Python's path */
#define LIBUDEV_PREFIX "libudev:"
#define LIBUDEV_PLACE "%u:/dev/bus/usb/%u/%u" /* interface, bus, address */
#define LIBUSB_PREFIX "libusb-1.0:"
#define LIBUSB_PLACE "%u:%u:%u" /* bus, address, interface */

enum code { /* response codes that the plug itself returns or looks at */
	IFD_SUCCESS = 0,
	IFD_ERROR_TAG = 600,
	IFD_COMMUNICATION_ERROR = 612,
	IFD_ICC_NOT_PRESENT = 616,
	IFD_NO_SUCH_DEVICE = 617,
	IFD_ERROR_INSUFFICIENT_BUFFER = 618,
};
enum tag { /* tags that the plug itself answers or looks at */
	TAG_THREAD_SAFE = 0x0FAD,
	TAG_SIMULTANEOUS_ACCESS = 0x0FAF,
	TAG_POLLING_THREAD_KILLABLE = 0x0FB1,
	TAG_STOP_POLLING_THREAD = 0x0FB2,
	TAG_POLLING_THREAD_WITH_TIMEOUT = 0x0FB3,
	TAG_DEVICE_REMOVED = 0x0FB4,
};
enum operation { /* of a request */
	OP_OPEN = 1,
	OP_CLOSE = 2,
	OP_GET = 3,
	OP_SET = 4,
	OP_PROTOCOL = 5,
	OP_POWER = 6,
	OP_TRANSMIT = 7,
	OP_CONTROL = 8,
	OP_PRESENCE = 9,
};
enum asker { /* the argument of OP_PRESENCE: which thread of pcscd asks */
	ASKER_OTHER = 0,
	ASKER_WATCHER = 1,
	ASKER_WATCHER_TOLD = 2,
};
enum kind { /* of a reply */
	KIND_REPLY = 0,
	KIND_ALIVE = 1,
};
enum event { /* a byte on the event socket */
	EVENT_CHANGE = '!', /* the plug treats any byte but EVENT_GONE as this one */
	EVENT_GONE = 'x',   /* the reader was unplugged */
};
struct request { /* `length` bytes of data follow */
	uint32_t operation, argument, capacity, length;
};
struct reply { /* `length` bytes of data follow */
	uint32_t kind;
	int32_t code;
	uint32_t length;
};
struct connection { /* on the control socket, with a request and an event socket as descriptors */
	uint32_t lun;
};

/* Bytes of data that fit into a request or a reply. */
#define MAX_DATA (BUFFER_SIZE - sizeof(struct request))

/* IFD handler 3.0. */

typedef long RESPONSECODE;
#ifdef __APPLE__
typedef uint32_t DWORD;
#else
typedef unsigned long DWORD;
#endif
typedef unsigned char UCHAR;
typedef struct {
	DWORD Protocol, Length;
} SCARD_IO_HEADER;

#define EXPORT __attribute__((visibility("default")))
EXPORT RESPONSECODE IFDHCreateChannelByName(DWORD Lun, char *name);
EXPORT RESPONSECODE IFDHCreateChannel(DWORD Lun, DWORD channel);
EXPORT RESPONSECODE IFDHCloseChannel(DWORD Lun);
EXPORT RESPONSECODE IFDHGetCapabilities(DWORD Lun, DWORD tag, DWORD *length, UCHAR *value);
EXPORT RESPONSECODE IFDHSetCapabilities(DWORD Lun, DWORD tag, DWORD length, UCHAR *value);
EXPORT RESPONSECODE IFDHSetProtocolParameters(DWORD Lun, DWORD protocol, UCHAR flags, UCHAR pts1,
                                              UCHAR pts2, UCHAR pts3);
EXPORT RESPONSECODE IFDHPowerICC(DWORD Lun, DWORD action, UCHAR *atr, DWORD *length);
EXPORT RESPONSECODE IFDHTransmitToICC(DWORD Lun, SCARD_IO_HEADER send, UCHAR *tx, DWORD txlen,
                                      UCHAR *rx, DWORD *rxlen, SCARD_IO_HEADER *recv);
EXPORT RESPONSECODE IFDHControl(DWORD Lun, DWORD code, UCHAR *tx, DWORD txlen, UCHAR *rx,
                                DWORD rxlen, DWORD *returned);
EXPORT RESPONSECODE IFDHICCPresence(DWORD Lun);

/* The log function of pcscd; missing where another program has loaded the plug. */
extern void log_msg(int priority, const char *format, ...) __attribute__((weak));

enum trouble {
	NONE,
	SHORTAGE, /* nothing was sent: no memory or descriptor is left, or the message is too long */
	TOO_LONG, /* the reply has more data than the caller has room for; the data are lost */
	LOST,     /* the other end hung up, or sent no valid frame */
	SILENT,   /* the other end sent nothing within the time limit */
};

struct helper {
	char key[NAME_SIZE];
	int users;   /* number of channels of this helper; 0: this entry is free */
	pid_t pid;   /* 0: no process runs */
	int control; /* the control socket, which passes channels to the helper */
	unsigned generation; /* counts the starts and ends of the process */
	double started;      /* time of the last start */
};

struct channel {
	int used;
	DWORD lun;
	char name[NAME_SIZE];
	struct helper *helper;
	int request, event;  /* sockets; -1: not connected */
	int stop[2];         /* pipe that ends the polling function */
	int has_events;      /* the reader sends events */
	int is_watched;      /* a thread of pcscd has called the polling function: `watcher` */
	pthread_t watcher;
	int said_absent;     /* the last answer to the watcher was IFD_ICC_NOT_PRESENT */
	int told_absent;     /* the watcher has told all clients of that answer */
	int owes_absence;    /* a new helper has the reader: report once that there is no card */
	int is_fresh;        /* no frame has come on the request socket yet */
	int is_open;         /* the helper has opened the reader */
	int is_gone;         /* the helper has reported that the reader was unplugged */
	int is_removed;      /* pcscd has reported that the device is gone: start no helper */
	pid_t hung_up;       /* the helper that hung up, until that is told; 0: none */
	double tried;        /* time of the last OP_OPEN */
	unsigned generation; /* generation of the helper that this channel is connected to */
};

/* Guards the tables and all descriptors. No thread holds it while it waits for a helper. */
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct helper helpers[CHANNELS];
static struct channel channels[CHANNELS];
static pid_t lost[CHANNELS]; /* processes that were killed and not reaped yet */
static pthread_mutex_t turns[CHANNELS]; /* one a channel, held while a request runs */
static pthread_once_t turns_are_made = PTHREAD_ONCE_INIT;
extern char **environ;

static void __attribute__((format(printf, 1, 2))) complain(const char *format, ...)
{
	char line[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	if (log_msg)
		log_msg(LOG_ERROR, "ccid: %s", line);
	else
		fprintf(stderr, "ccid: %s\n", line);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Helpers -------------------------------------------------------------------------------------- */

static void reap_lost(void)
{
	for (int i = 0; i < CHANNELS; i++)
		if (lost[i] && (waitpid(lost[i], NULL, WNOHANG) != 0))
			lost[i] = 0;
}

/* Close the control socket, which asks the helper to end. The caller holds the guard, and passes
 * the returned process id to bury(). */
static pid_t let_go(struct helper *h)
{
	pid_t pid = h->pid;

	shut(&h->control);
	h->generation++;
	h->pid = 0;
	return pid;
}

static int ends_within(pid_t pid, double seconds)
{
	double until = now() + seconds;
	struct timespec pause = {0, 2 * 1000 * 1000};

	while (waitpid(pid, NULL, WNOHANG) == 0) {
		if (now() > until)
			return 0;
		nanosleep(&pause, NULL);
	}
	return 1;
}

/* Reap a process that was asked to end; kill it after `patience` seconds. The caller does not hold
 * the guard. */
static void bury(pid_t pid, double patience)
{
	if (!pid || ends_within(pid, patience))
		return;
	kill(pid, SIGKILL);
	if (ends_within(pid, 0.5))
		return;
	pthread_mutex_lock(&guard); /* a system call keeps it alive: reap it later */
	for (int i = 0; i < CHANNELS; i++)
		if (!lost[i]) {
			lost[i] = pid;
			break;
		}
	pthread_mutex_unlock(&guard);
}

static int make_sockets(int type, int pair[2])
{
#ifdef SOCK_CLOEXEC
	return socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair);
#else
	if (socketpair(AF_UNIX, type, 0, pair))
		return -1;
	fcntl(pair[0], F_SETFD, FD_CLOEXEC);
	fcntl(pair[1], F_SETFD, FD_CLOEXEC);
	return 0;
#endif
}

/* A pipe whose ends do not block: a thread that empties it must not wait for more. */
static int make_pipe(int ends[2])
{
#ifdef SOCK_CLOEXEC
	return pipe2(ends, O_CLOEXEC | O_NONBLOCK);
#else
	if (pipe(ends))
		return -1;
	for (int i = 0; i < 2; i++)
		if (fcntl(ends[i], F_SETFD, FD_CLOEXEC) || fcntl(ends[i], F_SETFL, O_NONBLOCK)) {
			shut(&ends[0]);
			shut(&ends[1]);
			return -1;
		}
	return 0;
#endif
}

/* Read the interpreter's path from the file INTERPRETER beside this shared object. Returns 0 and
 * sets `folder` and `program`, or returns -1. */
static int find_interpreter(char *folder, char *program, size_t size)
{
	Dl_info info;
	char path[NAME_SIZE + sizeof INTERPRETER + 1], *end;
	FILE *file;

	if (!dladdr((const void *)(uintptr_t)find_interpreter, &info) || !info.dli_fname ||
	    strlen(info.dli_fname) >= NAME_SIZE)
		return -1;
	snprintf(folder, size, "%s", info.dli_fname);
	end = strrchr(folder, '/');
	if (!end)
		return -1;
	*end = 0;
	snprintf(path, sizeof path, "%.*s/%s", NAME_SIZE, folder, INTERPRETER);
	file = fopen(path, "re");
	if (!file) {
		complain("%s: %s", path, strerror(errno));
		return -1;
	}
	end = fgets(program, (int)size, file);
	fclose(file);
	if (!end)
		return -1;
	program[strcspn(program, "\r\n")] = 0;
	return program[0] == '/' ? 0 : -1;
}

static int spawn(struct helper *h, int control)
{
	char folder[NAME_SIZE], program[NAME_SIZE];
	char *argv[] = {program, "-I", "-m", HELPER_MODULE, folder, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	int error;

	if (find_interpreter(folder, program, sizeof program)) {
		complain("no interpreter is named beside the driver");
		return -1;
	}
	sigemptyset(&none);
	sigfillset(&all);
	error = posix_spawn_file_actions_init(&actions);
	if (error)
		goto no_actions;
	error = posix_spawnattr_init(&attributes);
	if (error)
		goto no_attributes;
	error = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	if (!error)
		error = posix_spawn_file_actions_adddup2(&actions, 2, 1);
	if (!error)
		error = posix_spawn_file_actions_adddup2(&actions, control, CONTROL_FD);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
	                                          POSIX_SPAWN_SETPGROUP);
	if (!error)
		error = posix_spawn(&h->pid, program, &actions, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
no_attributes:
	posix_spawn_file_actions_destroy(&actions);
no_actions:
	if (error) {
		complain("%s cannot be started: %s", program, strerror(error));
		h->pid = 0;
		return -1;
	}
	return 0;
}

/* Start the process of a helper. The caller holds the guard.
 *
 * Until the process runs Python code of ours it can say nothing, and how long that takes depends on
 * disk and processor: three that start beside each other in an emulated machine take more than half
 * a minute. A process that ends is noticed at once, so START_S is for an interpreter that hangs.
 *
 * A signal ends the process until it has its handlers: it has opened nothing by then. The plug does
 * not block the signals meanwhile, for an interpreter that hangs must be one that can be ended. */
static int start_helper(struct helper *h)
{
	int pair[2], control, failed;

	reap_lost();
	h->started = now();
	if (make_sockets(SOCK_STREAM, pair)) {
		complain("no helper can be started: %s", strerror(errno));
		return -1;
	}
	/* The child replaces descriptors 0 to CONTROL_FD: the copy has a higher number. */
	control = fcntl(pair[1], F_DUPFD_CLOEXEC, CONTROL_FD + 1);
	close(pair[1]);
	if (control < 0)
		complain("no helper can be started: %s", strerror(errno));
	failed = control < 0 || spawn(h, control);
	shut(&control);
	if (failed) {
		close(pair[0]);
		return -1;
	}
	h->control = pair[0];
	h->generation++;
	return 0;
}

/* What errno of a failed socket call means. */
static enum trouble trouble_of(int error)
{
	switch (error) {
	case EAGAIN:
#if EWOULDBLOCK != EAGAIN
	case EWOULDBLOCK:
#endif
		return SILENT;
	case EPIPE:
	case ECONNRESET:
	case ENOTCONN:
		return LOST;
	default:
		return SHORTAGE;
	}
}

/* Pass the two sockets of a channel to the helper. Does not wait. */
static enum trouble pass(int control, DWORD lun, int request, int event)
{
	struct connection head = {(uint32_t)lun};
	int fds[2] = {request, event};
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof fds)];
	} extra;
	struct iovec part = {&head, sizeof head};
	struct msghdr message = {0};
	struct cmsghdr *c;

	memset(&extra, 0, sizeof extra);
	message.msg_iov = &part;
	message.msg_iovlen = 1;
	message.msg_control = &extra;
	message.msg_controllen = sizeof extra.room;
	c = CMSG_FIRSTHDR(&message);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fds);
	memcpy(CMSG_DATA(c), fds, sizeof fds);
	for (;;) {
		ssize_t sent = sendmsg(control, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent == sizeof head)
			return NONE;
		if (sent >= 0)
			return LOST; /* the helper would take the next message for the rest of this one */
		if (errno != EINTR)
			return trouble_of(errno);
	}
}

/* Requests ------------------------------------------------------------------------------------- */

#ifdef __APPLE__
static enum trouble receive_part(int fd, void *to, size_t size)
{
	char *at = to;

	while (size) {
		ssize_t got = recv(fd, at, size, MSG_WAITALL);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 && trouble_of(errno) == SILENT ? SILENT : LOST;
		at += got;
		size -= (size_t)got;
	}
	return NONE;
}

static enum trouble receive(int fd, struct reply *reply, void *into, size_t room)
{
	enum trouble what = receive_part(fd, reply, sizeof *reply);
	char rest[512];

	if (what || reply->length <= room)
		return what ? what : receive_part(fd, into, reply->length);
	if (reply->length > MAX_DATA)
		return LOST;
	for (size_t left = reply->length, part; left && !what; left -= part) {
		part = left < sizeof rest ? left : sizeof rest;
		what = receive_part(fd, rest, part);
	}
	return what ? what : TOO_LONG;
}
#else
static enum trouble receive(int fd, struct reply *reply, void *into, size_t room)
{
	struct iovec parts[2] = {{reply, sizeof *reply}, {into, room}};
	struct msghdr message = {0};
	ssize_t got;

	message.msg_iov = parts;
	message.msg_iovlen = 2;
	do
		got = recvmsg(fd, &message, 0);
	while (got < 0 && errno == EINTR);
	if (got < 0) /* after a shortage, the next request would receive this reply: drop the channel */
		return trouble_of(errno) == SILENT ? SILENT : LOST;
	if (got < (ssize_t)sizeof *reply)
		return LOST;
	if (message.msg_flags & MSG_TRUNC)
		return reply->length > room ? TOO_LONG : LOST;
	return (size_t)got == sizeof *reply + reply->length ? NONE : LOST;
}
#endif

static enum trouble transmit(int fd, const struct request *head, const void *data)
{
	struct iovec parts[2] = {
		{(void *)(uintptr_t)head, sizeof *head},
		{(void *)(uintptr_t)data, head->length},
	};
	struct msghdr message = {0};
	size_t size = sizeof *head + head->length, left = size;

	message.msg_iov = parts;
	message.msg_iovlen = 2;
	while (left) {
		ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0) {
			enum trouble what = trouble_of(errno);
			return what == SHORTAGE && left < size ? LOST : what;
		}
		left -= (size_t)sent;
		for (int i = 0; i < 2; i++) {
			size_t part = (size_t)sent < parts[i].iov_len ? (size_t)sent : parts[i].iov_len;
			parts[i].iov_base = (char *)parts[i].iov_base + part;
			parts[i].iov_len -= part;
			sent -= (ssize_t)part;
		}
	}
	return NONE;
}

static void set_patience(int fd, long seconds)
{
	struct timeval t = {seconds, 0};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
}

/* Whether a process was ended by SIGTERM. It closes its sockets a moment before it can be waited
 * for. It is not reaped. */
static int was_terminated(pid_t pid)
{
	siginfo_t how = {0};
	double until = now() + 0.2;
	struct timespec pause = {0, 2 * 1000 * 1000};

	while (!waitid(P_PID, (id_t)pid, &how, WEXITED | WNOHANG | WNOWAIT) && !how.si_pid &&
	       now() < until)
		nanosleep(&pause, NULL);
	return how.si_pid == pid && how.si_code == CLD_KILLED && how.si_status == SIGTERM;
}

/* Tell of a helper that hung up. The caller holds the guard. */
static void tell_lost(struct channel *c)
{
	if (c->hung_up)
		complain("the helper of %s (process %d) hung up", c->name, (int)c->hung_up);
	c->hung_up = 0;
}

/* Disconnect a channel that got no reply. A stuck helper is killed. A helper that hung up may still
 * run: join_helper() finds out. A service manager that stops pcscd signals its helpers, too, and one
 * of them may be the first to end, which is no fault: join_helper() tells of the helper of a reader
 * that was open, and of one that a signal ended before it ran code of ours. */
static void give_up(struct channel *c, enum trouble what)
{
	pid_t pid, stuck = 0;
	int is_no_fault = c->is_open;

	pthread_mutex_lock(&guard);
	pid = c->generation == c->helper->generation ? c->helper->pid : 0;
	pthread_mutex_unlock(&guard);
	if (pid && what != SILENT && c->is_fresh)
		is_no_fault = was_terminated(pid);
	pthread_mutex_lock(&guard);
	if (pid && c->generation == c->helper->generation) {
		if (what == SILENT) {
			complain("the helper of %s (process %d) is stuck and is ended", c->name, (int)pid);
			stuck = let_go(c->helper);
		} else {
			c->hung_up = pid;
			if (!is_no_fault)
				tell_lost(c);
		}
	}
	shut(&c->request); /* the polling function sees the end of the event socket */
	c->is_open = 0;
	pthread_mutex_unlock(&guard);
	bury(stuck, 0);
}

/* Send a request and receive the reply. The caller holds the channel's turn. `length` is the room
 * at `into` in bytes before the call, and the number of received bytes after the call. */
static RESPONSECODE ask(struct channel *c, enum operation operation, DWORD argument,
                        const void *data, DWORD size, void *into, DWORD *length)
{
	struct request head = {operation, (uint32_t)argument, 0, (uint32_t)size};
	struct reply reply = {0};
	DWORD room = length && into ? *length : 0;
	enum trouble what;

	if (length)
		*length = 0;
	if (c->request < 0 || size > MAX_DATA || (size && !data))
		return IFD_COMMUNICATION_ERROR;
	if (room > MAX_DATA)
		room = MAX_DATA;
	head.capacity = (uint32_t)room;
	what = transmit(c->request, &head, data);
	if (what == SHORTAGE) {
		complain("%s: a request of %lu bytes: %s", c->name, (unsigned long)size,
		         strerror(errno));
		return IFD_COMMUNICATION_ERROR;
	}
	if (!what)
		do {
			what = receive(c->request, &reply, into, room);
			if (!what && c->is_fresh) {
				c->is_fresh = 0;
				set_patience(c->request, SILENCE_S);
			}
		} while (!what && reply.kind == KIND_ALIVE);
	if (what == LOST || what == SILENT || reply.kind != KIND_REPLY) {
		give_up(c, what);
		return IFD_COMMUNICATION_ERROR;
	}
	if (what == TOO_LONG)
		return IFD_ERROR_INSUFFICIENT_BUFFER;
	if (length)
		*length = reply.length;
	return reply.code;
}

/* Connect a channel to its helper, and start the helper if no process runs. The caller holds the
 * channel's turn. */
static int join_helper(struct channel *c)
{
	int request[2] = {-1, -1}, event[2] = {-1, -1};
	struct helper *h = c->helper;
	pid_t ended[2] = {0, 0};
	enum trouble what;

	pthread_mutex_lock(&guard);
	tell_lost(c); /* pcscd goes on */
	shut(&c->event);
	what = make_sockets(FRAMES, request) || make_sockets(SOCK_STREAM, event) ? SHORTAGE : LOST;
	if (what == SHORTAGE)
		complain("%s: no sockets: %s", c->name, strerror(errno));
	for (int i = 0; i < 2 && what == LOST; i++) {
		if (!h->pid && (now() - h->started < RESTART_S || start_helper(h)))
			break;
		what = pass(h->control, c->lun, request[1], event[1]);
		if (what == LOST) {
			complain("the helper of %s (process %d) has ended", c->name, (int)h->pid);
			ended[i] = let_go(h);
		} else if (what) {
			complain("%s: the helper cannot be reached: %s", c->name, strerror(errno));
		}
	}
	shut(&request[1]);
	shut(&event[1]);
	if (what) {
		shut(&request[0]);
		shut(&event[0]);
	} else {
		c->request = request[0];
		c->event = event[0];
		c->generation = h->generation;
		c->is_fresh = 1;
		set_patience(c->request, START_S);
	}
	pthread_mutex_unlock(&guard);
	for (int i = 0; i < 2; i++)
		bury(ended[i], 0);
	return what ? -1 : 0;
}

/* Have the helper of a channel open the reader: at most once a second, and again after a failure,
 * for another program may have the reader and give it back later. The caller holds the channel's
 * turn. */
static RESPONSECODE attach(struct channel *c)
{
	RESPONSECODE code;
	UCHAR has_events = 0;
	DWORD length = sizeof has_events;

	if (c->is_removed || now() - c->tried < RESTART_S || (c->request < 0 && join_helper(c)))
		return IFD_COMMUNICATION_ERROR;
	code = ask(c, OP_OPEN, 0, c->name, strlen(c->name), &has_events, &length);
	c->tried = now();
	pthread_mutex_lock(&guard); /* the polling function reads these fields */
	c->is_open = code == IFD_SUCCESS;
	if (c->is_open) {
		c->has_events = length == 1 && has_events;
		c->is_gone = 0;
	}
	pthread_mutex_unlock(&guard);
	return code;
}

/* The tables ----------------------------------------------------------------------------------- */

static struct channel *find(DWORD lun)
{
	struct channel *found = NULL;

	pthread_mutex_lock(&guard);
	for (int i = 0; i < CHANNELS && !found; i++)
		if (channels[i].used && channels[i].lun == lun)
			found = &channels[i];
	pthread_mutex_unlock(&guard);
	return found;
}

static void make_turns(void)
{
	for (int i = 0; i < CHANNELS; i++)
		pthread_mutex_init(&turns[i], NULL);
}

static void give_back(struct channel *c)
{
	pthread_mutex_unlock(&turns[c - channels]);
}

/* Find a channel and take its turn, until give_back(); NULL if there is no such channel. */
static struct channel *take(DWORD lun)
{
	struct channel *c = find(lun);
	int is_there;

	if (!c)
		return NULL;
	pthread_mutex_lock(&turns[c - channels]);
	pthread_mutex_lock(&guard); /* another thread may have closed the channel meanwhile */
	is_there = c->used && c->lun == lun;
	pthread_mutex_unlock(&guard);
	if (!is_there)
		give_back(c);
	return is_there ? c : NULL;
}

/* The key of a device, equal for all its channels: bus and address, if the name has both. */
static void make_key(char *key, size_t size, DWORD lun, const char *name)
{
	unsigned bus, address, interface;
	const char *place;

	if ((place = strstr(name, LIBUDEV_PREFIX)) &&
	    sscanf(place, LIBUDEV_PREFIX LIBUDEV_PLACE, &interface, &bus, &address) == 3)
		snprintf(key, size, "usb %u %u", bus, address);
	else if ((place = strstr(name, LIBUSB_PREFIX)) &&
	         sscanf(place, LIBUSB_PREFIX LIBUSB_PLACE, &bus, &address, &interface) == 3)
		snprintf(key, size, "usb %u %u", bus, address);
	else
		snprintf(key, size, "reader %lu", (unsigned long)(lun >> READER_SHIFT));
}

/* Find or make the entry of the helper for `key`; NULL if the table is full. The caller holds the
 * guard. */
static struct helper *helper_of(const char *key)
{
	struct helper *free_place = NULL;

	for (int i = 0; i < CHANNELS; i++) {
		if (helpers[i].users && !strcmp(helpers[i].key, key))
			return &helpers[i];
		if (!helpers[i].users && !free_place)
			free_place = &helpers[i];
	}
	if (free_place) {
		unsigned generation = free_place->generation;
		memset(free_place, 0, sizeof *free_place);
		free_place->generation = generation;
		free_place->control = -1;
		free_place->started = -RESTART_S;
		snprintf(free_place->key, sizeof free_place->key, "%s", key);
	}
	return free_place;
}

/* Enter a channel into the table and take its turn; NULL if the Lun has a channel already, or the
 * table is full. */
static struct channel *enter(DWORD lun, const char *name)
{
	struct channel *c = NULL;
	struct helper *h;
	char key[NAME_SIZE];
	int is_known = 0, stop[2];

	pthread_once(&turns_are_made, make_turns);
	if (lun > UINT32_MAX || strlen(name) >= NAME_SIZE)
		return NULL;
	make_key(key, sizeof key, lun, name);
	pthread_mutex_lock(&guard);
	for (int i = 0; i < CHANNELS; i++)
		is_known |= channels[i].used && channels[i].lun == lun;
	for (int i = 0; i < CHANNELS && !is_known && !c; i++)
		if (!channels[i].used && !pthread_mutex_trylock(&turns[i]))
			c = &channels[i];
	h = c ? helper_of(key) : NULL;
	if (c && (!h || make_pipe(stop))) {
		complain("%s: %s", name, h ? strerror(errno) : "too many readers");
		give_back(c);
		c = NULL;
	}
	if (c) {
		memset(c, 0, sizeof *c);
		c->stop[0] = stop[0];
		c->stop[1] = stop[1];
		c->helper = h;
		h->users++;
		c->request = c->event = -1;
		c->tried = -RESTART_S;
		c->lun = lun;
		strcpy(c->name, name);
		c->used = 1;
	}
	pthread_mutex_unlock(&guard);
	return c;
}

/* Remove a channel from the table and give its turn back. With the last channel of a helper, end
 * the helper. */
static void leave(struct channel *c)
{
	pid_t pid = 0;

	pthread_mutex_lock(&guard);
	shut(&c->request);
	shut(&c->event);
	shut(&c->stop[0]);
	shut(&c->stop[1]);
	if (--c->helper->users == 0)
		pid = let_go(c->helper);
	c->used = 0;
	reap_lost();
	pthread_mutex_unlock(&guard);
	give_back(c);
	bury(pid, HELPER_END_S);
}

/* Waiting -------------------------------------------------------------------------------------- */

/* Receive bytes from the event socket. IFD_NO_SUCH_DEVICE only if EVENT_GONE comes first: events
 * that came before it are reported first. */
static RESPONSECODE hear(struct channel *c, int event)
{
	char bytes[64];
	ssize_t got = recv(event, bytes, sizeof bytes, MSG_DONTWAIT);

	if (got <= 0)
		return got < 0 && (errno == EAGAIN || errno == EINTR) ? IFD_SUCCESS : IFD_COMMUNICATION_ERROR;
	if (!memchr(bytes, EVENT_GONE, (size_t)got))
		return IFD_SUCCESS;
	pthread_mutex_lock(&guard);
	c->is_gone = 1;
	pthread_mutex_unlock(&guard);
	return bytes[0] == EVENT_GONE ? IFD_NO_SUCH_DEVICE : IFD_SUCCESS;
}

/* TAG_IFD_POLLING_THREAD_WITH_TIMEOUT: wait for an event, at most `timeout` ms. */
static RESPONSECODE wait_for_event(DWORD Lun, int timeout)
{
	struct channel *c = find(Lun);
	struct pollfd fds[2];
	char bytes[64];
	RESPONSECODE code = IFD_SUCCESS;
	int event = -1, stop, is_gone;

	if (!c)
		return IFD_COMMUNICATION_ERROR;
	pthread_mutex_lock(&guard);
	c->watcher = pthread_self();
	c->is_watched = 1;
	c->told_absent |= c->said_absent; /* pcscd calls this function after it has told all clients */
	c->said_absent = 0;
	if (!c->has_events && (timeout < 0 || timeout > ASK_MS))
		timeout = ASK_MS; /* no event will come: pcscd has to ask */
	is_gone = c->is_gone;
	/* copies, for another thread may close or replace both during poll() */
	stop = fcntl(c->stop[0], F_DUPFD_CLOEXEC, 3);
	if (c->event >= 0)
		event = fcntl(c->event, F_DUPFD_CLOEXEC, 3);
	if ((event < 0 || !c->is_open) && (timeout < 0 || timeout > 1000))
		timeout = 1000; /* no helper has the reader: the next presence query opens it */
	pthread_mutex_unlock(&guard);
	fds[0].fd = stop;
	fds[1].fd = event;
	fds[0].events = fds[1].events = POLLIN;
	if (is_gone) { /* pcscd pauses after this code, and meanwhile udev tells pcscd the same */
		code = IFD_NO_SUCH_DEVICE;
	} else if (stop < 0) {
		code = IFD_COMMUNICATION_ERROR;
	} else if (poll(fds, 2, timeout) < 0) {
		code = errno == EINTR ? IFD_SUCCESS : IFD_COMMUNICATION_ERROR;
	} else {
		if (fds[0].revents)
			while (read(stop, bytes, sizeof bytes) > 0)
				;
		if (fds[1].revents)
			code = hear(c, event);
	}
	shut(&stop);
	shut(&event);
	return code;
}

/* TAG_IFD_STOP_POLLING_THREAD. */
static RESPONSECODE stop_waiting(DWORD Lun)
{
	RESPONSECODE code = IFD_COMMUNICATION_ERROR;
	struct channel *c = find(Lun);

	if (!c)
		return code;
	pthread_mutex_lock(&guard);
	if (c->used && (write(c->stop[1], "", 1) == 1 || errno == EAGAIN))
		code = IFD_SUCCESS;
	pthread_mutex_unlock(&guard);
	return code;
}

/* IFD handler 3.0 ------------------------------------------------------------------------------ */

RESPONSECODE IFDHCreateChannelByName(DWORD Lun, char *name)
{
	struct channel *c = name ? enter(Lun, name) : NULL;
	RESPONSECODE code;

	if (!c)
		return IFD_COMMUNICATION_ERROR;
	code = attach(c);
	if (code == IFD_SUCCESS)
		give_back(c);
	else
		leave(c);
	return code;
}

RESPONSECODE IFDHCreateChannel(DWORD Lun, DWORD channel)
{
	char nameless[] = "";

	(void)channel;
	return IFDHCreateChannelByName(Lun, nameless);
}

RESPONSECODE IFDHCloseChannel(DWORD Lun)
{
	struct channel *c = take(Lun);

	if (!c)
		return IFD_COMMUNICATION_ERROR;
	ask(c, OP_CLOSE, 0, NULL, 0, NULL, NULL);
	leave(c);
	return IFD_SUCCESS;
}

static RESPONSECODE answer(UCHAR *value, DWORD *length, const void *from, DWORD size)
{
	DWORD room = value ? *length : 0;

	*length = room < size ? 0 : size;
	if (room < size)
		return IFD_ERROR_INSUFFICIENT_BUFFER;
	if (size)
		memcpy(value, from, size);
	return IFD_SUCCESS;
}

RESPONSECODE IFDHGetCapabilities(DWORD Lun, DWORD tag, DWORD *length, UCHAR *value)
{
	static const UCHAR safe = 1, readers = MAX_READERS;
	RESPONSECODE (*const wait)(DWORD, int) = wait_for_event;
	RESPONSECODE (*const stop)(DWORD) = stop_waiting;
	struct channel *c;
	RESPONSECODE code;
	DWORD room;

	if (!find(Lun) || !length)
		return IFD_COMMUNICATION_ERROR;
	switch (tag) { /* values that need no helper, and functions of this process */
	case TAG_THREAD_SAFE:
		return answer(value, length, &safe, sizeof safe);
	case TAG_SIMULTANEOUS_ACCESS:
		return answer(value, length, &readers, sizeof readers);
	case TAG_POLLING_THREAD_WITH_TIMEOUT:
		return answer(value, length, &wait, sizeof wait);
	case TAG_STOP_POLLING_THREAD:
		return answer(value, length, &stop, sizeof stop);
	case TAG_POLLING_THREAD_KILLABLE:
		return answer(value, length, NULL, 0);
	case TAG_DEVICE_REMOVED:
		if (value && *length == sizeof safe)
			*value = safe;
		return IFD_SUCCESS;
	default:
		break;
	}
	c = take(Lun);
	if (!c)
		return IFD_COMMUNICATION_ERROR;
	room = *length;
	code = ask(c, OP_GET, tag, NULL, 0, value, length);
	give_back(c);
	if (code == IFD_ERROR_TAG)
		*length = room; /* pcscd then answers some tags itself, such as the reader's name, and
		                 * reads the room from here */
	return code;
}

/* pcscd reports that a device is gone: start no helper for the device any more. */
static void forget_device(struct helper *h)
{
	pthread_mutex_lock(&guard);
	for (int i = 0; i < CHANNELS; i++)
		if (channels[i].used && channels[i].helper == h)
			channels[i].is_gone = channels[i].is_removed = 1;
	pthread_mutex_unlock(&guard);
}

RESPONSECODE IFDHSetCapabilities(DWORD Lun, DWORD tag, DWORD length, UCHAR *value)
{
	struct channel *c = take(Lun);
	RESPONSECODE code;

	if (!c)
		return IFD_COMMUNICATION_ERROR;
	if (tag == TAG_DEVICE_REMOVED && length == 1 && value && *value)
		forget_device(c->helper);
	code = ask(c, OP_SET, tag, value, length, NULL, NULL);
	give_back(c);
	return code;
}

RESPONSECODE IFDHSetProtocolParameters(DWORD Lun, DWORD protocol, UCHAR flags, UCHAR pts1,
                                       UCHAR pts2, UCHAR pts3)
{
	struct channel *c = take(Lun);
	UCHAR bytes[] = {flags, pts1, pts2, pts3};
	RESPONSECODE code;

	if (!c)
		return IFD_COMMUNICATION_ERROR;
	code = ask(c, OP_PROTOCOL, protocol, bytes, sizeof bytes, NULL, NULL);
	give_back(c);
	return code;
}

RESPONSECODE IFDHPowerICC(DWORD Lun, DWORD action, UCHAR *atr, DWORD *length)
{
	struct channel *c = length ? take(Lun) : NULL;
	RESPONSECODE code;

	if (!c)
		return IFD_COMMUNICATION_ERROR;
	code = ask(c, OP_POWER, action, NULL, 0, atr, length);
	give_back(c);
	return code;
}

RESPONSECODE IFDHTransmitToICC(DWORD Lun, SCARD_IO_HEADER send, UCHAR *tx, DWORD txlen, UCHAR *rx,
                               DWORD *rxlen, SCARD_IO_HEADER *recv)
{
	struct channel *c = rxlen ? take(Lun) : NULL;
	RESPONSECODE code;

	(void)recv;
	if (!c)
		return IFD_COMMUNICATION_ERROR;
	code = ask(c, OP_TRANSMIT, send.Protocol, tx, txlen, rx, rxlen);
	give_back(c);
	return code;
}

RESPONSECODE IFDHControl(DWORD Lun, DWORD code, UCHAR *tx, DWORD txlen, UCHAR *rx, DWORD rxlen,
                         DWORD *returned)
{
	struct channel *c = take(Lun);
	RESPONSECODE result;

	if (returned)
		*returned = 0;
	if (!c)
		return IFD_COMMUNICATION_ERROR;
	result = ask(c, OP_CONTROL, code, tx, txlen, rx, &rxlen);
	give_back(c);
	if (returned)
		*returned = rxlen;
	return result;
}

/* When a card was taken out and another one is in, the answer is IFD_ICC_NOT_PRESENT until the
 * watcher, the thread of pcscd that watches the slot, has told all clients. Other threads of pcscd
 * ask too, before they power the card: their queries do not use the answer up. The watcher has told
 * all clients when it calls the polling function again. */
RESPONSECODE IFDHICCPresence(DWORD Lun)
{
	struct channel *c = take(Lun);
	RESPONSECODE code;
	enum asker asker = ASKER_OTHER;

	if (!c)
		return IFD_COMMUNICATION_ERROR;
	pthread_mutex_lock(&guard);
	if (!c->is_watched || pthread_equal(c->watcher, pthread_self())) {
		asker = c->told_absent ? ASKER_WATCHER_TOLD : ASKER_WATCHER;
		c->told_absent = 0;
	}
	pthread_mutex_unlock(&guard);
	if (!c->is_open) {
		attach(c);
		c->owes_absence = 1; /* whether attach() succeeded or not */
	} else if (asker == ASKER_WATCHER_TOLD) {
		c->owes_absence = 0;
	}
	if (c->owes_absence) {
		code = IFD_ICC_NOT_PRESENT;
		if (c->is_open)
			stop_waiting(Lun); /* no event will come: end the wait, and the watcher asks again */
	} else {
		code = ask(c, OP_PRESENCE, (DWORD)asker, NULL, 0, NULL, NULL);
	}
	if (asker != ASKER_OTHER) {
		pthread_mutex_lock(&guard);
		c->said_absent = code == IFD_ICC_NOT_PRESENT;
		if (!c->is_watched) /* no thread watches: any caller counts as the watcher */
			c->told_absent = c->said_absent;
		pthread_mutex_unlock(&guard);
	}
	give_back(c);
	return code;
}
